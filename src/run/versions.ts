/** What a run was made with, for its record. */

/** The package's version; a test holds it equal to package.json's. */
export const packageVersion = "0.1.0";

export const versions = (): Record<string, string> => {
  const { process } = globalThis as { process?: { versions?: Record<string, string>; platform?: string; arch?: string } };
  return {
    tiltlm: packageVersion,
    ...(process?.versions?.["node"] === undefined
      ? {}
      : { node: process.versions["node"], platform: `${process.platform}-${process.arch}` }),
  };
};
