// Keys that work anywhere on the page. None is a plain letter: those belong to text.
import { useEffect } from 'preact/hooks';

export interface Shortcuts {
  search: () => void;
  newChat: () => void;
  options: () => void;
  settings: () => void;
  focus: () => void;
  escape: () => void;
}

export function useShortcuts(shortcuts: Shortcuts): void {
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (event.isComposing) return;
      const action = actionOf(event);
      // In a modal window Escape is the window's own.
      if (!action || (action === 'escape' && document.querySelector('dialog[open]'))) return;
      event.preventDefault();
      shortcuts[action]();
    };
    document.addEventListener('keydown', listen);
    return () => document.removeEventListener('keydown', listen);
  });
}

function actionOf(event: KeyboardEvent): keyof Shortcuts | null {
  if (event.key === 'Escape') return event.shiftKey ? 'focus' : 'escape';
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return null;
  const key = event.key.toLowerCase();
  if (event.shiftKey) return key === 'o' ? 'newChat' : null;
  if (key === 'k') return 'search';
  if (key === '.') return 'options';
  return key === ',' ? 'settings' : null;
}
