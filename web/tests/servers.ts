// What the tests talk to: quern itself with the model that ships, and a hostile server that shows
// the same pages. Their addresses go to the tests by the environment.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startHostileServer } from './hostile_server';

// A run of so many steps whose loss falls.
export function metrics(from: number, to: number): string {
  let rows = '';
  for (let step = from; step <= to; ++step) {
    const loss = 2 + 7 * Math.exp(-step / 60) + 0.2 * Math.sin(step);
    rows += `${step},${step * 2048},${(step * 1.5).toFixed(3)},${loss.toFixed(5)},`;
    rows += `${(1e-3 * Math.cos(step / 260)).toExponential(4)},${(1 + 5 / step).toFixed(4)},1365.3,0.61\n`;
  }
  return rows;
}

export const METRICS_HEADER = 'step,tokens,seconds,loss,lr,grad_norm,tokens_per_s,share_of_peak\n';

function makeRuns(): string {
  const folder = mkdtempSync(join(tmpdir(), 'quern-runs-'));
  for (const [name, steps] of [['mini', 300], ['wide <b>', 200]] as const) {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, 'metrics.csv'), METRICS_HEADER + metrics(1, steps));
    let rows = 'step,tokens,source,loss,bits_per_byte\n';
    for (let step = 50; step <= steps; step += 50) {
      for (const [source, add] of [['stories', 0.1], ['books', 0.6]] as const) {
        const loss = 2 + add + 7 * Math.exp(-step / 60);
        rows += `${step},${step * 2048},${source},${loss.toFixed(6)},${(loss / 3).toFixed(6)}\n`;
      }
    }
    writeFileSync(join(folder, name, 'validation.csv'), rows);
  }
  mkdirSync(join(folder, 'not-a-run'));
  symlinkSync(join(folder, 'mini'), join(folder, 'latest'));
  return folder;
}

function startQuern(runs: string): Promise<{ url: string; stop: () => void }> {
  const program = process.env['QUERN_PROGRAM'];
  const model = process.env['QUERN_MODEL'];
  if (!program || !model) throw new Error('QUERN_PROGRAM and QUERN_MODEL say what is tested');
  const child = spawn(
    program,
    ['serve', model, '--port', '0', '--threads', '2', '--access-log', 'none', '--runs', runs],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  return new Promise((resolve, reject) => {
    child.on('exit', (code) => reject(new Error(`quern serve ended with ${code}`)));
    let said = '';
    child.stdout.on('data', (bytes: Buffer) => {
      said += bytes.toString();
      const url = /listening on (\S+)/.exec(said)?.[1];
      if (url) resolve({ url, stop: () => child.kill('SIGTERM') });
    });
  });
}

export default async function setup(): Promise<() => Promise<void>> {
  const runs = makeRuns();
  const quern = await startQuern(process.env['QUERN_RUNS'] ?? runs);
  const hostile = await startHostileServer(quern.url);
  process.env['QUERN_URL'] = quern.url;
  process.env['HOSTILE_URL'] = hostile.url;
  process.env['RUNS_FOLDER'] = runs;
  return async () => {
    quern.stop();
    hostile.stop();
    rmSync(runs, { recursive: true });
  };
}

