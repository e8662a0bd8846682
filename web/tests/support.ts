// A page whose every test also shows that nothing was refused by the Content-Security-Policy, no
// script failed, and nothing was asked of another server.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { expect, test as base, type Page } from '@playwright/test';

export { expect };

export const test = base.extend<{ settings: object; page: Page }>({
  settings: [{}, { option: true }],
  page: async ({ page, settings }, use) => {
    const problems: string[] = [];
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => {
      if (/Content Security Policy|Trusted/i.test(message.text())) problems.push(message.text());
    });
    page.on('request', (request) => {
      const { hostname, protocol } = new URL(request.url());
      if (protocol !== 'blob:' && hostname !== '127.0.0.1') problems.push(`asked ${request.url()}`);
    });
    await page.addInitScript((stored) => {
      document.addEventListener('securitypolicyviolation', (event) => {
        console.error(`Content Security Policy: ${event.violatedDirective} ${event.blockedURI}`);
      });
      if (!localStorage.getItem('quern-settings')) {
        localStorage.setItem('quern-settings', JSON.stringify(stored));
      }
    }, settings);
    await use(page);
    expect(problems).toEqual([]);
  },
});

export const quern = (): string => process.env['QUERN_URL']!;
export const hostile = (): string => process.env['HOSTILE_URL']!;

// Short answers, the same ones each time.
export const short = {
  defaults: { model: '', system: '', sampling: { max_tokens: 10, seed: 1, temperature: 0.5 } },
};

export const box = (page: Page) => page.getByRole('textbox', { name: 'Message', exact: true });
export const answers = (page: Page) => page.getByRole('article', { name: 'Answer' });
export const questions = (page: Page) => page.getByRole('article', { name: 'You' });

export async function ask(page: Page, text: string): Promise<void> {
  await box(page).fill(text);
  await box(page).press('Enter');
}

// Until the last answer is whole.
export async function answered(page: Page): Promise<void> {
  await expect(page.getByRole('button', { name: 'Send' })).toBeVisible();
  await expect(answers(page).last().getByRole('button').first()).toBeVisible();
}

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// No fault that axe calls serious or worse.
export async function expectAccessible(page: Page, where: string): Promise<void> {
  await page.evaluate(axe);
  const faults = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: typeof import('axe-core') };
    const { violations } = await axe.run();
    return violations
      .filter((v) => v.impact === 'serious' || v.impact === 'critical')
      .map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target.join(' ')} ${n.failureSummary ?? ''}`).join('; ')}`);
  });
  expect(faults, where).toEqual([]);
}
