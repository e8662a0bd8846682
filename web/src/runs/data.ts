// Training runs as the server gives them, and as curves.
import { request } from '../chat/api';
import type { Word } from '../shared/i18n';
import type { Series } from './chart';

type Columns = Record<string, (number | null)[]>;

export interface RunEntry {
  name: string;
  updated: number; // seconds since 1970
}

export interface Run extends RunEntry {
  now: number;
  metrics: Columns;
  validation: (Columns & { source: never })[];
  skipped: number;
}

export type Axis = 'tokens' | 'step' | 'seconds';

export async function listRuns(key: string): Promise<{ now: number; runs: RunEntry[] }> {
  return (await request('/runs/data', key)).json();
}

// The browser asks whether its copy is still good; a run that stands still costs nothing.
export async function loadRun(name: string, key: string): Promise<Run> {
  const path = `/runs/data/${encodeURIComponent(name)}`;
  return (await request(path, key, { cache: 'no-cache' })).json();
}

const QUIET_S = 180; // a run that has written nothing for so long has ended, or hangs

export const isLive = (updated: number, now: number): boolean => now - updated < QUIET_S;

export interface Picture {
  title: Word;
  column: string;
  log: boolean;
  smooth: boolean;
}

export const PICTURES: Picture[] = [
  { title: 'chartLoss', column: 'loss', log: false, smooth: true },
  { title: 'chartValid', column: '', log: false, smooth: false },
  { title: 'chartRate', column: 'lr', log: false, smooth: false },
  { title: 'chartNorm', column: 'grad_norm', log: true, smooth: true },
  { title: 'chartSpeed', column: 'tokens_per_s', log: false, smooth: true },
  { title: 'chartShare', column: 'share_of_peak', log: false, smooth: true },
];

const SMOOTHING = 0.9;

export function seriesOf(picture: Picture, runs: Run[], colors: number[], axis: Axis, smooth: boolean): Series[] {
  const all: Series[] = [];
  runs.forEach((run, i) => {
    const color = colors[i]!;
    if (picture.column === '') {
      run.validation.forEach((source, s) => {
        const name = String(source.source);
        const only = runs.length === 1;
        all.push({
          name: only ? name : `${run.name}: ${name}`,
          color: only ? s : color,
          dash: only ? 0 : s,
          marks: true,
          points: pointsOf(source, axisOf(source, axis), 'loss'),
        });
      });
      return;
    }
    const points = pointsOf(run.metrics, axisOf(run.metrics, axis), picture.column);
    if (picture.smooth && smooth) {
      all.push({ name: '', color, faint: true, points });
      all.push({ name: run.name, color, points: smoothed(points) });
    } else {
      all.push({ name: run.name, color, points });
    }
  });
  return all;
}

// Validation has no clock: against hours it is shown against tokens.
const axisOf = (columns: Columns, axis: Axis): Axis => (columns[axis] ? axis : 'tokens');

function pointsOf(columns: Columns, x: string, y: string): [number, number][] {
  const points: [number, number][] = [];
  const xs = columns[x] ?? [];
  const ys = columns[y] ?? [];
  const unit = x === 'seconds' ? 3600 : 1;
  for (let i = 0; i < xs.length; ++i) {
    const at = xs[i];
    const value = ys[i];
    if (typeof at === 'number' && typeof value === 'number') points.push([at / unit, value]);
  }
  return points;
}

// The exponential mean, unbiased at its beginning.
function smoothed(points: [number, number][]): [number, number][] {
  let sum = 0;
  let weight = 0;
  return points.map(([x, y]) => {
    sum = SMOOTHING * sum + (1 - SMOOTHING) * y;
    weight = SMOOTHING * weight + (1 - SMOOTHING);
    return [x, sum / weight];
  });
}
