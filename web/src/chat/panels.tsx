// What can be set: of a conversation (its system prompt and sampling), and of the page.
import { useEffect, useId, useState } from 'preact/hooks';
import { Dialog } from '../shared/dialog';
import { useWords } from '../shared/i18n';
import { Icon } from '../shared/icons';
import type { Settings } from '../shared/settings';
import type { ModelCard, ModelEntry } from './api';
import type { Options } from './conversation';
import { parseField, SAMPLING_FIELDS, type SamplingField } from './sampling';

interface OptionsProps {
  options: Options;
  model: ModelEntry | undefined;
  settings: Settings;
  onChange: (options: Options) => void;
  onSettings: (change: (settings: Settings) => Settings) => void;
  onClose: () => void;
}

export function OptionsPanel(props: OptionsProps) {
  const { options, model, onChange, onClose } = props;
  const t = useWords();
  const set = (field: SamplingField, value: number | undefined) => {
    const sampling = { ...options.sampling };
    if (value === undefined) delete sampling[field.name];
    else sampling[field.name] = value;
    onChange({ ...options, sampling });
  };
  const stop = (text: string) => {
    const lines = text.split('\n').filter(Boolean);
    onChange({ ...options, stop: lines.length ? lines : undefined });
  };
  return (
    <aside class="options" aria-label={t('options')}>
      <header class="dialog-head">
        <h2>{t('options')}</h2>
        <button type="button" class="quiet" aria-label={t('close')} onClick={onClose}>
          <Icon name="close" />
        </button>
      </header>
      {model?.quern && <Card name={model.id} card={model.quern} />}
      <Presets {...props} />
      <label class="field">
        <span class="label">{t('system')}</span>
        <textarea
          rows={4}
          value={options.system}
          aria-describedby="system-hint"
          onInput={(event) => onChange({ ...options, system: event.currentTarget.value })}
        />
      </label>
      <p id="system-hint" class="hint">
        {t('systemHint')}
      </p>
      <div class="heading">
        <h3>{t('sampling')}</h3>
        <button type="button" class="plain" onClick={() => onChange({ ...options, sampling: {} })}>
          {t('reset')}
        </button>
      </div>
      <p class="hint">{t('samplingHint')}</p>
      {SAMPLING_FIELDS.map((field) => (
        <SamplingRow
          key={field.name}
          field={field}
          value={options.sampling[field.name]}
          standard={model?.quern?.defaults?.[field.name]}
          onChange={(value) => set(field, value)}
        />
      ))}
      <label class="field">
        <span class="label">{t('stopStrings')}</span>
        <textarea
          rows={2}
          class="mono"
          defaultValue={(options.stop ?? []).join('\n')}
          onChange={(event) => stop(event.currentTarget.value)}
        />
      </label>
      <SchemaField schema={options.schema ?? ''} onChange={(schema) => onChange({ ...options, schema })} />
    </aside>
  );
}

function Card({ name, card }: { name: string; card: ModelCard }) {
  const t = useWords();
  const millions = card.parameters / 1e6;
  const count = millions >= 1000 ? `${(millions / 1000).toPrecision(3)} B` : `${millions.toPrecision(3)} M`;
  const size = card.bytes >= 1e9 ? `${(card.bytes / 1e9).toPrecision(3)} GB` : `${Math.round(card.bytes / 1e6)} MB`;
  const rows: [string, string][] = [
    [t('cardFamily'), card.family],
    [t('cardSize'), t('cardParameters', count, size)],
    [t('cardQuantization'), card.quantization],
    [t('cardContext'), t('cardTokens', card.context.toLocaleString('en'))],
    [t('cardLicence'), card.licence ?? t('notSaid')],
  ];
  return (
    <dl class="card" aria-label={name}>
      {rows.map(([what, value]) => (
        <div key={what}>
          <dt>{what}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Presets({ options, settings, onChange, onSettings }: OptionsProps) {
  const t = useWords();
  const [chosen, setChosen] = useState('');
  const [naming, setNaming] = useState(false);
  const preset = settings.presets.find(({ name }) => name === chosen);
  const save = (name: string) => {
    setNaming(false);
    if (!name) return;
    const saved = { name, options: { ...structuredClone(options), model: '' } };
    onSettings((old) => ({
      ...old,
      presets: [...old.presets.filter((other) => other.name !== name), saved],
    }));
    setChosen(name);
  };
  return (
    <section class="presets">
      <label class="field">
        <span class="label">{t('presets')}</span>
        <select
          value={preset ? chosen : ''}
          onChange={(event) => {
            const name = event.currentTarget.value;
            setChosen(name);
            const next = settings.presets.find((other) => other.name === name);
            if (next) onChange({ ...structuredClone(next.options), model: options.model });
          }}
        >
          <option value="">{t('presetNone')}</option>
          {settings.presets.map(({ name }) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      {preset && (
        <label class="check">
          <input
            type="checkbox"
            checked={settings.preset === chosen}
            onChange={(event) => {
              const { checked } = event.currentTarget;
              onSettings((old) => ({ ...old, preset: checked ? chosen : '' }));
            }}
          />
          {t('presetDefault')}
        </label>
      )}
      <div class="buttons">
        <button type="button" onClick={() => setNaming(true)}>
          {t('presetSave')}
        </button>
        {preset && (
          <button
            type="button"
            onClick={() => {
              onSettings((old) => ({
                ...old,
                presets: old.presets.filter((other) => other.name !== chosen),
                preset: old.preset === chosen ? '' : old.preset,
              }));
              setChosen('');
            }}
          >
            {t('presetRemove')}
          </button>
        )}
      </div>
      {naming && (
        <Dialog title={t('presetSave')} onClose={() => setNaming(false)}>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              save(String(new FormData(event.currentTarget).get('name') ?? '').trim());
            }}
          >
            <input name="name" aria-label={t('presetName')} defaultValue={chosen} maxLength={80} autofocus />
            <div class="dialog-buttons">
              <button type="button" onClick={() => setNaming(false)}>
                {t('cancel')}
              </button>
              <button type="submit" class="primary">
                {t('save')}
              </button>
            </div>
          </form>
        </Dialog>
      )}
    </section>
  );
}

function SchemaField({ schema, onChange }: { schema: string; onChange: (schema: string | undefined) => void }) {
  const t = useWords();
  const [wrong, setWrong] = useState(false);
  const change = (text: string) => {
    let good = true;
    try {
      if (text.trim()) JSON.parse(text);
    } catch {
      good = false;
    }
    setWrong(!good);
    onChange(good && text.trim() ? text : undefined);
  };
  return (
    <>
      <label class="field">
        <span class="label">{t('schema')}</span>
        <textarea
          rows={3}
          class="mono"
          spellcheck={false}
          defaultValue={schema}
          aria-invalid={wrong}
          aria-describedby="schema-hint"
          onChange={(event) => change(event.currentTarget.value)}
        />
      </label>
      <p id="schema-hint" class={wrong ? 'wrong' : 'hint'} role={wrong ? 'alert' : undefined}>
        {t(wrong ? 'schemaWrong' : 'schemaHint')}
      </p>
    </>
  );
}

interface RowProps {
  field: SamplingField;
  value: number | undefined;
  standard: number | undefined;
  onChange: (value: number | undefined) => void;
}

// Text that is no value of the field stays as it was typed, with a word on what is expected.
function SamplingRow({ field, value, standard, onChange }: RowProps) {
  const t = useWords();
  const id = useId();
  const [wrong, setWrong] = useState('');
  const { name, min, max, step, slider } = field;
  useEffect(() => {
    if (value !== undefined) setWrong('');
  }, [value]);
  const change = (text: string, bad: boolean) => {
    const parsed = bad ? undefined : parseField(field, text);
    const empty = text.trim() === '' && !bad;
    if (parsed !== undefined || empty) setWrong('');
    else if (bad) setWrong(t('fieldNumber'));
    else setWrong(max >= 2147483647 ? t('fieldFrom', min) : t('fieldBounds', min, max));
    onChange(parsed);
  };
  return (
    <div class={`sampling ${value === undefined ? 'unset' : ''}`}>
      <label for={id}>{t(name)}</label>
      <input
        id={id}
        type="number"
        min={min}
        max={max}
        step="any"
        value={wrong ? undefined : (value ?? '')}
        placeholder={standard === undefined ? t('byDefault') : t('defaultIs', standard)}
        aria-invalid={wrong !== ''}
        aria-describedby={wrong ? `${id}-wrong` : undefined}
        onChange={(event) => change(event.currentTarget.value, event.currentTarget.validity.badInput)}
      />
      {slider && (
        <input
          type="range"
          aria-label={t(name)}
          min={min}
          max={max}
          step={step}
          value={value ?? standard ?? max / 2}
          onInput={(event) => onChange(Number(event.currentTarget.value))}
        />
      )}
      {wrong && (
        <p id={`${id}-wrong`} class="wrong" role="alert">
          {wrong}
        </p>
      )}
    </div>
  );
}

interface SettingsProps {
  settings: Settings;
  apiKey: string;
  onChange: (settings: Settings) => void;
  onKey: (key: string) => void;
  onExport: () => void;
  onImport: (file: File) => void;
  onClose: () => void;
}

export function SettingsDialog(props: SettingsProps) {
  const { settings, apiKey, onChange, onKey, onExport, onImport, onClose } = props;
  const t = useWords();
  const mac = /Mac|iPhone|iPad/.test(navigator.platform);
  const command = mac ? '⌘' : 'Ctrl';
  const shortcuts: [string, string][] = [
    ['Enter', t('shortcutSend')],
    ['Shift Enter', t('shortcutLine')],
    ['Esc', t('shortcutStop')],
    ['↑', t('shortcutEdit')],
    ['Shift Esc', t('shortcutFocus')],
    [`${command} K`, t('search')],
    [`${command} Shift O`, t('newChat')],
    [`${command} .`, t('options')],
    [`${command} ,`, t('settings')],
  ];
  return (
    <Dialog title={t('settings')} kind="wide" onClose={onClose}>
      <div class="columns">
        <label class="field">
          <span class="label">{t('theme')}</span>
          <select
            value={settings.theme}
            onChange={(event) =>
              onChange({ ...settings, theme: event.currentTarget.value as Settings['theme'] })
            }
          >
            <option value="system">{t('themeSystem')}</option>
            <option value="light">{t('themeLight')}</option>
            <option value="dark">{t('themeDark')}</option>
          </select>
        </label>
        <label class="field">
          <span class="label">{t('language')}</span>
          <select
            value={settings.language}
            onChange={(event) =>
              onChange({ ...settings, language: event.currentTarget.value as Settings['language'] })
            }
          >
            <option value="en">English</option>
            <option value="zh">中文</option>
          </select>
        </label>
      </div>
      <label class="field">
        <span class="label">{t('key')}</span>
        <input
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={apiKey}
          aria-describedby="key-hint"
          onInput={(event) => onKey(event.currentTarget.value.trim())}
        />
      </label>
      <p id="key-hint" class="hint">
        {t('keyHint')}
      </p>
      <label class="check">
        <input
          type="checkbox"
          checked={settings.rememberKey}
          onChange={(event) => onChange({ ...settings, rememberKey: event.currentTarget.checked })}
        />
        {t('rememberKey')}
      </label>
      <label class="check">
        <input
          type="checkbox"
          checked={settings.probabilities}
          onChange={(event) => onChange({ ...settings, probabilities: event.currentTarget.checked })}
        />
        {t('probabilities')}
      </label>
      <h3>{t('dataHeading')}</h3>
      <div class="buttons">
        <button type="button" onClick={onExport}>
          {t('exportAll')}
        </button>
        <label class="button">
          {t('importFile')}
          <input
            type="file"
            class="unseen"
            accept="application/json,.json"
            onChange={(event) => {
              const file = event.currentTarget.files?.[0];
              if (file) onImport(file);
              event.currentTarget.value = '';
            }}
          />
        </label>
      </div>
      <h3>{t('shortcuts')}</h3>
      <dl class="shortcuts">
        {shortcuts.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              {keys.split(' ').map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="hint">
        <a href="/licenses.txt">{t('licences')}</a>
      </p>
    </Dialog>
  );
}
