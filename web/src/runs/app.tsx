// The page of training runs: which there are, and the curves of those that are chosen.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ApiError } from '../chat/api';
import type { Failure } from '../chat/conversation';
import { translator, Words } from '../shared/i18n';
import { Icon, Mark } from '../shared/icons';
import { loadKey, loadSettings, saveKey } from '../shared/settings';
import { Chart } from './chart';
import { isLive, listRuns, loadRun, PICTURES, seriesOf, type Axis, type Run, type RunEntry } from './data';

const REFRESH_MS = 5000;
const MOST = 6; // as many as there are colours

// The chosen runs stand in the address, so that it can be kept and passed on.
const chosenInAddress = (): string[] =>
  location.hash
    .slice(1)
    .split('&')
    .filter(Boolean)
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    })
    .slice(0, MOST);

export function App() {
  const settings = useMemo(loadSettings, []);
  const t = useMemo(() => translator(settings.language), []);
  const [key, setKey] = useState(loadKey);
  const [entries, setEntries] = useState<RunEntry[] | null>(null);
  const [now, setNow] = useState(0);
  const [chosen, setChosen] = useState<string[]>(chosenInAddress);
  const [runs, setRuns] = useState<Record<string, Run>>({});
  const [axis, setAxis] = useState<Axis>('tokens');
  const [smooth, setSmooth] = useState(true);
  const [logLoss, setLogLoss] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);
  const untouched = useRef(chosen.length === 0); // nothing chosen yet: the newest is shown

  useEffect(() => {
    let over = false;
    let timer: ReturnType<typeof setTimeout>;
    const refresh = async () => {
      try {
        const list = await listRuns(key);
        const newest = list.runs[0]?.name;
        let wanted = chosen;
        if (untouched.current && chosen.length === 0 && newest) {
          untouched.current = false;
          setChosen((wanted = [newest]));
        }
        const there = wanted.filter((name) => list.runs.some((run) => run.name === name));
        const loaded = await Promise.all(there.map((name) => loadRun(name, key)));
        if (over) return;
        setEntries(list.runs);
        setNow(list.now);
        setRuns(Object.fromEntries(loaded.map((run) => [run.name, run])));
        setFailure(null);
      } catch (problem) {
        if (over) return;
        setFailure(
          problem instanceof ApiError ? problem.failure : { kind: 'broken', detail: String(problem) },
        );
      }
      if (!over) timer = setTimeout(wake, REFRESH_MS);
    };
    // A page that nobody looks at asks for nothing.
    const wake = () => (document.hidden ? (timer = setTimeout(wake, 1000)) : void refresh());
    void refresh();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [key, chosen]);

  useEffect(() => {
    history.replaceState(null, '', `#${chosen.map(encodeURIComponent).join('&')}`);
  }, [chosen]);

  const toggle = (name: string) => {
    untouched.current = false;
    setChosen((old) =>
      old.includes(name) ? old.filter((n) => n !== name) : [...old, name].slice(-MOST),
    );
  };
  const shown = chosen.map((name) => runs[name]).filter((run) => run !== undefined);
  const colors = shown.map((run) => chosen.indexOf(run.name));
  const axisName = { tokens: t('overTokens'), step: t('overStep'), seconds: t('overSeconds') }[axis];
  const off = failure?.kind === 'unknown-model'; // 404: the server shows none

  return (
    <Words.Provider value={t}>
      <div class="runs-page">
        <nav class="side" aria-label={t('runsList')}>
          <header class="brand">
            <Mark />
            <span>Quern</span>
          </header>
          <h2>{t('runsList')}</h2>
          <ul>
            {entries?.map(({ name, updated }) => (
              <li key={name}>
                <label class="run">
                  <input type="checkbox" checked={chosen.includes(name)} onChange={() => toggle(name)} />
                  <i class={`swatch ${chosen.includes(name) ? `c${chosen.indexOf(name)}` : ''}`} />
                  <span>
                    {name}
                    <small>
                      {isLive(updated, now) ? <em>{t('live')}</em> : when(updated, settings.language)}
                    </small>
                  </span>
                </label>
              </li>
            ))}
          </ul>
          <a class="to-chat" href="/">
            <Icon name="chat" />
            {t('toChat')}
          </a>
        </nav>
        <main>
          <header class="runs-head">
            <h1>{t('runs')}</h1>
            <label>
              {t('over')}
              <select value={axis} onChange={(event) => setAxis(event.currentTarget.value as Axis)}>
                <option value="tokens">{t('overTokens')}</option>
                <option value="step">{t('overStep')}</option>
                <option value="seconds">{t('overSeconds')}</option>
              </select>
            </label>
            <label>
              <input
                type="checkbox"
                checked={smooth}
                onChange={(event) => setSmooth(event.currentTarget.checked)}
              />
              {t('smooth')}
            </label>
            <label>
              <input
                type="checkbox"
                checked={logLoss}
                onChange={(event) => setLogLoss(event.currentTarget.checked)}
              />
              {t('logLoss')}
            </label>
          </header>
          {failure?.kind === 'key' && (
            <form
              class="key"
              onSubmit={(event) => {
                event.preventDefault();
                const given = String(new FormData(event.currentTarget).get('key') ?? '').trim();
                saveKey(given, settings.rememberKey);
                setKey(given);
              }}
            >
              <label>
                {t(key ? 'keyWrong' : 'keyAsked')}
                <input name="key" type="password" aria-label={t('key')} autocomplete="off" spellcheck={false} />
              </label>
              <p class="hint">{t('keyHint')}</p>
              <button type="submit" class="primary">
                {t('useKey')}
              </button>
            </form>
          )}
          {failure && failure.kind !== 'key' && !off && (
            <p class="key" role="alert">
              {failure.kind === 'unreachable' ? t('failUnreachable') : failure.detail || t('failServer')}
            </p>
          )}
          {off ? (
            <Nothing title={t('runsOff')} hint={t('runsOffHint')} />
          ) : entries?.length === 0 ? (
            <Nothing title={t('noRuns')} hint={t('noRunsHint')} />
          ) : shown.length === 0 && entries ? (
            <Nothing title={t('chooseRuns')} hint="" />
          ) : (
            <div class="charts">
              {PICTURES.map((picture) => {
                const series = seriesOf(picture, shown, colors, axis, smooth);
                if (!series.some((s) => s.points.length > 0)) return null;
                const clockless = picture.column === '' && axis === 'seconds';
                return (
                  <Chart
                    key={picture.title}
                    title={t(picture.title)}
                    axis={clockless ? t('overTokens') : axisName}
                    series={series}
                    log={picture.log || (logLoss && (picture.title === 'chartLoss' || picture.title === 'chartValid'))}
                  />
                );
              })}
            </div>
          )}
        </main>
      </div>
    </Words.Provider>
  );
}

function Nothing({ title, hint }: { title: string; hint: string }) {
  return (
    <div class="nothing">
      <Mark />
      <h2>{title}</h2>
      <p>{hint}</p>
    </div>
  );
}

const when = (seconds: number, language: string): string =>
  new Date(seconds * 1000).toLocaleString(language, { dateStyle: 'medium', timeStyle: 'short' });
