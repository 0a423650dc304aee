import { type AdmissionLimits, defaultAdmissionLimits } from '../../src/agent-gateway/admission-gate.ts';

const plenty = 1_000_000;

/** A gate that lets everybody in at once, for tests of what comes behind it. */
export const wideOpen: AdmissionLimits = {
  ...defaultAdmissionLimits,
  ...{ startCredit: plenty, maxCredit: plenty, placesOfStranger: plenty, places: plenty, strangerPlaces: plenty },
};
