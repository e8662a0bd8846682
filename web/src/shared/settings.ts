// What this browser remembers of its reader's choices. The key stays in the tab unless it is to be
// remembered.
import type { Options } from '../chat/conversation';

export type Theme = 'system' | 'light' | 'dark';
export type Language = 'en' | 'zh';

// A way of talking that has a name: system prompt, sampling and what bounds answers.
export interface Preset {
  name: string;
  options: Options; // its model is not used
}

export interface Settings {
  theme: Theme;
  language: Language;
  probabilities: boolean; // ask for those of each token
  rememberKey: boolean;
  defaults: Options; // of the next conversation: model and sampling last set
  presets: Preset[];
  preset: string; // that new conversations begin with; empty: none
}

const NAME = 'quern-settings';
const KEY = 'quern-key';

export function loadSettings(): Settings {
  const settings: Settings = {
    theme: 'system',
    language: navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en',
    probabilities: true,
    rememberKey: false,
    defaults: { model: '', system: '', sampling: {} },
    presets: [],
    preset: '',
  };
  try {
    const stored = JSON.parse(localStorage.getItem(NAME) ?? '{}') as Partial<Settings>;
    Object.assign(settings, stored);
  } catch {
    // Not ours, or not readable: the defaults do.
  }
  return settings;
}

// What a new conversation begins with.
export function fresh(settings: Settings): Options {
  const preset = settings.presets.find(({ name }) => name === settings.preset);
  const options = preset ? { ...preset.options, model: settings.defaults.model } : settings.defaults;
  return structuredClone(options);
}

export function saveSettings(settings: Settings): void {
  localStorage.setItem(NAME, JSON.stringify(settings));
}

export function loadKey(): string {
  return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? '';
}

export function saveKey(key: string, remember: boolean): void {
  sessionStorage.setItem(KEY, key);
  if (remember && key) localStorage.setItem(KEY, key);
  else localStorage.removeItem(KEY);
}

export function applySettings({ theme, language }: Settings): void {
  const root = document.documentElement;
  if (theme === 'system') root.removeAttribute('data-theme');
  else root.setAttribute('data-theme', theme);
  root.lang = language === 'zh' ? 'zh-Hans' : 'en';
}
