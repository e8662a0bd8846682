// A chart of curves as SVG. Pointing at it reads the values there.
import { useState } from 'preact/hooks';
import { useWords } from '../shared/i18n';

export interface Series {
  name: string; // empty: not in the legend
  color: number;
  points: [number, number][]; // by rising x
  faint?: boolean;
  dash?: number; // 0 is a line, above are kinds of dashes
  marks?: boolean;
}

interface Props {
  title: string;
  axis: string;
  series: Series[];
  log: boolean;
}

const WIDTH = 560;
const HEIGHT = 250;
const LEFT = 56;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 38;

export function format(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1e9) return `${trim(value / 1e9)}G`;
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 1e4) return `${trim(value / 1e3)}k`;
  if (size < 1e-3) return value.toExponential(1).replace('.0e', 'e').replace('-', '−');
  return trim(value);
}

const trim = (value: number): string => String(Number(value.toPrecision(4)));

// Round numbers within bounds, about `count` of them.
export function ticks(min: number, max: number, count: number): number[] {
  const rough = (max - min) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) ?? rough;
  const first = Math.ceil(min / step - 1e-9);
  const all: number[] = [];
  for (let i = first; i * step <= max + 1e-9 * step && all.length < 20; ++i) {
    all.push(Number((i * step).toPrecision(12)));
  }
  return all;
}

// Without those whose label would be that of the one before.
const told = (values: number[]): number[] =>
  values.filter((value, i) => i === 0 || format(value) !== format(values[i - 1]!));

function logTicks(min: number, max: number): number[] {
  const all: number[] = [];
  for (let e = Math.floor(Math.log10(min)); e <= Math.ceil(Math.log10(max)); ++e) {
    for (const m of max / min > 100 ? [1] : [1, 2, 5]) all.push(m * 10 ** e);
  }
  return all.filter((t) => t >= min && t <= max);
}

function boundsOf(series: Series[], log: boolean) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { points } of series) {
    for (const [x, y] of points) {
      if (log && y <= 0) continue; // a logarithm has no place for it
      x0 = Math.min(x0, x);
      x1 = Math.max(x1, x);
      y0 = Math.min(y0, y);
      y1 = Math.max(y1, y);
    }
  }
  if (x0 > x1) return null;
  if (x0 === x1) { // a single point stands in the middle
    const half = Math.max(Math.abs(x0) / 2, 0.5);
    x0 -= half;
    x1 += half;
  }
  const margin = log ? 1.1 : (y1 - y0) * 0.04 || Math.abs(y1) * 0.1 || 1;
  return log
    ? { x0, x1, y0: y0 / margin, y1: y1 * margin }
    : { x0, x1, y0: y0 >= 0 ? Math.max(0, y0 - margin) : y0 - margin, y1: y1 + margin };
}

function nearest(points: [number, number][], x: number): [number, number] | undefined {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle]![0] < x) low = middle + 1;
    else high = middle;
  }
  const after = points[low];
  const before = points[low - 1];
  return before && after && x - before[0] < after[0] - x ? before : after;
}

export function Chart({ title, axis, series, log }: Props) {
  const t = useWords();
  const [pointer, setPointer] = useState<number | null>(null);
  const named = series.filter((s) => s.name && s.points.length > 0);
  const bounds = boundsOf(series, log);
  const legend = named.map((s) => {
    const at = pointer === null ? s.points.at(-1)! : nearest(s.points, pointer)!;
    return { ...s, at };
  });
  const summary = legend
    .map(({ name, at }) => t('chartSummary', name, format(at[1]), `${format(at[0])} ${axis}`))
    .join('; ');
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      {bounds && (
        <Plot {...{ title, axis, series, log, bounds, pointer, setPointer, summary }} />
      )}
      <ul class="legend">
        {legend.map(({ name, color, at, dash }) => (
          <li key={name}>
            <svg class={`swatch-line s${color % 6}`} viewBox="0 0 22 6" aria-hidden="true">
              <path class={`curve d${(dash ?? 0) % 4}`} d="M0 3H22" />
            </svg>
            {name}
            <b>{format(at[1])}</b>
          </li>
        ))}
        {pointer !== null && legend[0] && (
          <li class="at">
            {format(pointer)} {axis}
          </li>
        )}
      </ul>
    </figure>
  );
}

interface PlotProps extends Props {
  bounds: { x0: number; x1: number; y0: number; y1: number };
  pointer: number | null;
  setPointer: (x: number | null) => void;
  summary: string;
}

function Plot({ title, axis, series, log, bounds, pointer, setPointer, summary }: PlotProps) {
  const { x0, x1, y0, y1 } = bounds;
  const scaled = log ? Math.log : (v: number) => v;
  const px = (x: number) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (y: number) => {
    const share = (scaled(y) - scaled(y0)) / (scaled(y1) - scaled(y0));
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  };
  const path = (points: [number, number][]) =>
    points
      .filter(([, y]) => !log || y > 0)
      .map(([x, y], i) => `${i ? 'L' : 'M'}${px(x).toFixed(1)} ${py(y).toFixed(1)}`)
      .join('');
  const move = (event: PointerEvent) => {
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const value = x0 + ((x - LEFT) / (WIDTH - LEFT - RIGHT)) * (x1 - x0);
    setPointer(Math.min(x1, Math.max(x0, value)));
  };
  return (
    <svg
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={`${title}. ${summary}`}
      onPointerMove={move}
      onPointerLeave={() => setPointer(null)}
    >
      {told(log ? logTicks(y0, y1) : ticks(y0, y1, 5)).map((y) => (
        <g key={y}>
          <path class="grid" d={`M${LEFT} ${py(y)}H${WIDTH - RIGHT}`} />
          <text class="y" x={LEFT - 8} y={py(y) + 4}>
            {format(y)}
          </text>
        </g>
      ))}
      {told(ticks(x0, x1, 6)).map((x) => (
        <text key={x} class="x" x={px(x)} y={HEIGHT - BOTTOM + 18}>
          {format(x)}
        </text>
      ))}
      <text class="x axis" x={(LEFT + WIDTH - RIGHT) / 2} y={HEIGHT - 3}>
        {axis}
      </text>
      {series.map((s, i) => (
        <path
          key={i}
          class={`curve s${s.color % 6} ${s.faint ? 'faint' : ''} d${(s.dash ?? 0) % 4}`}
          d={path(s.points)}
        />
      ))}
      {series
        .filter((s) => s.marks && s.points.length <= 60)
        .map((s, i) =>
          s.points.map(([x, y]) => (
            <circle key={`${i} ${x}`} class={`mark-point s${s.color % 6}`} cx={px(x)} cy={py(y)} r="2.400" />
          )),
        )}
      {pointer !== null && <path class="cross" d={`M${px(pointer)} ${TOP}V${HEIGHT - BOTTOM}`} />}
    </svg>
  );
}
