import { AegisError } from '../errors.ts';
import type { RegisteringLink } from '../fleet/registration.ts';
import { parseRegistrationProof, parseRegistrationRequest } from '../fleet/registration-input.ts';
import type { GatewayContext } from './context.ts';
import { patiently } from './patience.ts';
import {
  decodeObjectBody,
  encodeAnswer,
  registrationChannel,
  registrationCompleteChannel,
  type V1Frame,
} from './wire/v1.ts';

/** The answer to a registration frame and, where it ends the registration, the uid that the agent has now. */
export interface RegistrationAnswer {
  readonly text: string;
  readonly agentUid: string | null;
}

interface Outcome {
  readonly answer: object;
  readonly agentUid: string | null;
}

export function isRegistrationFrame(frame: V1Frame): boolean {
  return frame.channel === registrationChannel || frame.channel === registrationCompleteChannel;
}

/** Answers with plain JSON text, or with the error that stopped the registration. Never rejects. */
export async function answerRegistration(
  frame: V1Frame,
  link: RegisteringLink & { readonly remoteAddress: string | null },
  context: Pick<GatewayContext, 'registration' | 'clock' | 'wall' | 'report'>,
): Promise<RegistrationAnswer> {
  const body = decodeObjectBody(frame.payload);
  const work = frame.channel === registrationChannel ? begin : complete;
  const { answer, agentUid } = await patiently<Outcome>(context, 'a registration', work).catch(refusal);
  const text = encodeAnswer(`${frame.id}_response`, frame.channel, JSON.stringify(answer), context.wall.now());
  return { text, agentUid };

  async function begin(): Promise<Outcome> {
    const challenge = await context.registration.begin(parseRegistrationRequest(body), link);
    const { registrationId, nonce, serverTime } = challenge;
    return { answer: { registration_id: registrationId, nonce, server_time: serverTime }, agentUid: null };
  }

  async function complete(): Promise<Outcome> {
    const proof = parseRegistrationProof(body, link.remoteAddress);
    const { agentUid, bootstrapToken } = await context.registration.complete(proof, link);
    return { answer: { agent_uid: agentUid, bootstrap_token: bootstrapToken }, agentUid };
  }

  function refusal(error: unknown): Outcome {
    const { message, code } = error instanceof AegisError ? error : new AegisError('INTERNAL_SERVER_ERROR');
    return { answer: { error: message, code }, agentUid: null };
  }
}
