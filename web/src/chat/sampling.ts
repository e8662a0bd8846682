// The sampling controls, one row each: the panel, the request and the archive read this table.
import type { Sampling } from './conversation';

export interface SamplingField {
  name: keyof Sampling;
  min: number;
  max: number;
  step: number;
  slider: boolean;
}

const MOST = 2147483647;

export const SAMPLING_FIELDS: SamplingField[] = [
  { name: 'temperature', min: 0, max: 2, step: 0.05, slider: true },
  { name: 'top_p', min: 0, max: 1, step: 0.01, slider: true },
  { name: 'top_k', min: 0, max: MOST, step: 1, slider: false },
  { name: 'min_p', min: 0, max: 1, step: 0.01, slider: true },
  { name: 'repetition_penalty', min: 0.01, max: 10, step: 0.01, slider: false },
  { name: 'presence_penalty', min: -2, max: 2, step: 0.05, slider: false },
  { name: 'frequency_penalty', min: -2, max: 2, step: 0.05, slider: false },
  { name: 'max_tokens', min: 1, max: MOST, step: 1, slider: false },
  { name: 'seed', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, slider: false },
];

// The number that a field's text stands for; nothing where it is empty or out of bounds.
export function parseField(field: SamplingField, text: string): number | undefined {
  if (text.trim() === '') return undefined;
  const value = Number(text);
  if (!Number.isFinite(value) || value < field.min || value > field.max) return undefined;
  return field.step === 1 ? Math.round(value) : value;
}
