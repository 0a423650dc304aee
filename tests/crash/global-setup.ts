import { build } from '../../scripts/build.js';

/** It is the built gateway that crashes. */
export default function setup(): void {
  build();
}
