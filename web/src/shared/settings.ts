// What this browser remembers of its reader's choices. The key stays in the tab unless it is to be
// remembered.
import type { Options } from '../chat/conversation';

export type Theme = 'system' | 'light' | 'dark';
export type Language = 'en' | 'zh';

export interface Settings {
  theme: Theme;
  language: Language;
  probabilities: boolean; // ask for those of each token
  rememberKey: boolean;
  defaults: Options; // of the next conversation: those last set
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
  };
  try {
    const stored = JSON.parse(localStorage.getItem(NAME) ?? '{}') as Partial<Settings>;
    Object.assign(settings, stored);
  } catch {
    // Not ours, or not readable: the defaults do.
  }
  return settings;
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
