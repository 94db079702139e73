/**
 * The one error type of the package: what a user did or met, told as
 * "where: expected what, got what; how to fix".
 */

/** `usage`: the command line or a config is at fault (exit code 2). `runtime`: a file, a device or a number is (exit code 1). */
export type ErrorKind = "usage" | "runtime";

export class TiltError extends Error {
  readonly kind: ErrorKind;
  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "TiltError";
    this.kind = kind;
  }
}

export interface Complaint {
  /** The place: a file, a config key path, a function. */
  readonly where: string;
  /** What should have been there. */
  readonly expected: string;
  /** What was found. */
  readonly got: string;
  /** What the reader can do about it. */
  readonly fix: string;
}

const sentence = ({ where, expected, got, fix }: Complaint): string => `${where}: expected ${expected}, got ${got}; ${fix}`;

/** An error in the command line or a config. */
export const usageError = (complaint: Complaint, cause?: unknown): TiltError =>
  new TiltError("usage", sentence(complaint), cause === undefined ? undefined : { cause });

/** An error met while running: a broken file, a full disk, a number that is not finite. */
export const runtimeError = (complaint: Complaint, cause?: unknown): TiltError =>
  new TiltError("runtime", sentence(complaint), cause === undefined ? undefined : { cause });

/** The message of anything that was thrown. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
