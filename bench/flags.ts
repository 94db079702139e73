/** Lists on the command line. */

/** The names of a comma-separated list, in the order of `all`. A name that does not exist ends the process with exit code 2. */
export const chosen = <Name extends string>(all: readonly Name[], given: string, flag: string): readonly Name[] => {
  const names = given.split(",");
  const wrong = names.find((name) => !all.includes(name as Name));
  if (wrong !== undefined) {
    console.error(`${flag}: expected some of ${all.join(",")}, got ${JSON.stringify(wrong)}; separate names with commas`);
    process.exit(2);
  }
  return all.filter((name) => names.includes(name));
};
