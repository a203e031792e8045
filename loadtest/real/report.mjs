// How the Node checks report: the same lines and the same rows as report.py; see there.
//
// It is no test framework. A check passes by returning, fails by throwing, and skips by throwing
// `Skip`, which says what is not there.

import { appendFileSync } from "node:fs";
import process from "node:process";

export class Skip extends Error {}

/** The environment variable `name`, or a skip that names it. */
export function need(name) {
  const value = process.env[name];
  if (!value) throw new Skip(`${name} is not set`);
  return value;
}

export class Suite {
  #checks = [];

  constructor(name) {
    this.name = name;
  }

  /** Registers a check that a bare model server can pass too. */
  check(title, run) {
    this.#checks.push({ title, run, gateway: false });
  }

  /** Registers a check that only a gateway can pass. */
  gatewayCheck(title, run) {
    this.#checks.push({ title, run, gateway: true });
  }

  /** Runs all checks in order and gives the exit code. */
  async run({ direct }) {
    const counts = { PASS: 0, FAIL: 0, SKIP: 0 };
    for (const { title, run, gateway } of this.#checks) {
      const started = performance.now();
      let outcome = "PASS";
      let detail = "";
      try {
        if (direct && gateway) throw new Skip("needs the gateway");
        await run();
      } catch (error) {
        outcome = error instanceof Skip ? "SKIP" : "FAIL";
        detail = outcome === "SKIP" ? error.message : `${error.name}: ${error.message}`;
        if (outcome === "FAIL") console.error(error.stack);
      }
      counts[outcome] += 1;
      this.#row(title, outcome, detail);
      const seconds = ((performance.now() - started) / 1000).toFixed(2);
      console.log(`${outcome} ${title} (${seconds} s) ${detail}`.slice(0, 600));
    }
    console.log(`${counts.PASS} passed, ${counts.FAIL} failed, ${counts.SKIP} skipped`);
    const fatal = process.env.RELAIS_SKIPS === "fatal" && !direct;
    return counts.FAIL > 0 || (fatal && counts.SKIP > 0) ? 1 : 0;
  }

  #row(title, outcome, detail) {
    const path = process.env.RELAIS_RESULTS;
    if (!path) return;
    const flat = detail.split(/\s+/).join(" ").slice(0, 200);
    appendFileSync(path, `${this.name}\t${title}\t${outcome}\t${flat}\n`);
  }
}
