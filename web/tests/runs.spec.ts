// The page of training runs.
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, expectAccessible, quern, test } from './support';
import { METRICS_HEADER, metrics } from './servers';

const folder = (): string => process.env['RUNS_FOLDER']!;
const pictures = process.env['QUERN_SCREENSHOTS'];

test('runs are listed and compared', async ({ page }) => {
  test.skip(process.env['QUERN_RUNS'] !== undefined, 'shows runs of its own');
  await page.goto(`${quern()}/runs#mini`);
  await expect(page.getByRole('figure')).toHaveCount(6);
  const loss = page.getByRole('img', { name: /^Training loss/ });
  await expect(loss).toHaveAccessibleName(/mini: [\d.]+ at 614\.4k tokens/);
  await expect(page.getByText('latest')).toHaveCount(0); // a link is no run
  await expect(page.getByText('not-a-run')).toHaveCount(0);
  await page.getByLabel('wide <b>').check();
  await expect(loss).toHaveAccessibleName(/mini: .*; wide <b>: /);
  await expect(page.getByRole('img', { name: /^Validation/ })).toHaveAccessibleName(/mini: stories.*wide <b>: books/);
  await page.getByLabel('Against').selectOption('step');
  await expect(loss).toHaveAccessibleName(/at 300 steps/);
  await loss.hover();
  await expect(page.locator('.legend .at').first()).toContainText('steps');
  await expectAccessible(page, 'runs');
  await page.reload(); // the choice is in the address
  await expect(loss).toHaveAccessibleName(/mini: .*; wide <b>: /);
});

test('a run that goes on grows on the page', async ({ page }) => {
  test.skip(process.env['QUERN_RUNS'] !== undefined, 'shows runs of its own');
  const run = join(folder(), 'growing');
  mkdirSync(run, { recursive: true });
  writeFileSync(join(run, 'metrics.csv'), METRICS_HEADER + metrics(1, 5) + '6,122'); // half a line
  await page.goto(`${quern()}/runs#growing`);
  await page.getByLabel('Against').selectOption('step');
  const loss = page.getByRole('img', { name: /^Training loss/ });
  await expect(loss).toHaveAccessibleName(/at 5 steps/);
  await expect(page.getByText('going on').first()).toBeVisible();
  appendFileSync(join(run, 'metrics.csv'), '88,9.0,5.5,1e-3,1.2,1365.3,0.61\n' + metrics(7, 9));
  await expect(loss).toHaveAccessibleName(/at 9 steps/);
});

test('a run of one step has one label on its axis', async ({ page }) => {
  test.skip(process.env['QUERN_RUNS'] !== undefined, 'shows runs of its own');
  const run = join(folder(), 'single');
  mkdirSync(run, { recursive: true });
  writeFileSync(join(run, 'metrics.csv'), METRICS_HEADER + metrics(300, 300));
  await page.goto(`${quern()}/runs#single`);
  const loss = page.getByRole('img', { name: /^Training loss/ });
  const labels = await loss.locator('text.x:not(.axis)').allTextContents();
  expect(new Set(labels).size).toBe(labels.length);
  const rows = await loss.locator('text.y').allTextContents();
  expect(new Set(rows).size).toBe(rows.length);
});

test('pictures of real runs', async ({ page }) => {
  test.skip(!pictures || !process.env['QUERN_RUNS'], 'QUERN_SCREENSHOTS and QUERN_RUNS ask for them');
  await page.goto(`${quern()}/runs`);
  for (const name of (process.env['QUERN_RUN_NAMES'] ?? '').split(',').filter(Boolean)) {
    await page.getByLabel(name, { exact: false }).first().check();
  }
  await expect(page.getByRole('figure').first()).toBeVisible();
  await page.waitForTimeout(500);
  await page.screenshot({ path: join(pictures!, 'runs.png') });
});
