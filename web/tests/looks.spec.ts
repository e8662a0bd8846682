// Widths, colours, languages: that the page holds together in each, and that everybody can use it.
import { join } from 'node:path';
import type { Page } from '@playwright/test';
import { answered, answers, ask, expect, expectAccessible, hostile, quern, short, test } from './support';

// With QUERN_SCREENSHOTS=FOLDER the pictures of the documentation are made.
const folder = process.env['QUERN_SCREENSHOTS'];
async function picture(page: Page, name: string): Promise<void> {
  if (!folder) return;
  await page.mouse.move(0, 0);
  await page.screenshot({ path: join(folder, `${name}.png`) });
}
const story = folder
  ? { defaults: { model: '', system: '', sampling: { seed: 3, max_tokens: 150 } } }
  : short;

async function fitsWidth(page: Page): Promise<void> {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  expect(wide).toBe(false);
}

test.use({ settings: story });

for (const scheme of ['light', 'dark'] as const) {
  test.describe(scheme, () => {
    test.use({ colorScheme: scheme });

    test('chat, options and settings', async ({ page }) => {
      await page.goto(quern());
      await expectAccessible(page, 'empty');
      await picture(page, `${scheme}-empty`);
      await ask(page, 'Tell me a story about a brave little mouse.');
      await answered(page);
      await page.getByRole('button', { name: 'Token probabilities' }).click();
      await expectAccessible(page, 'tokens');
      await page.locator('.token').nth(7).hover();
      if (folder) await page.screenshot({ path: join(folder, `${scheme}-tokens.png`) });
      await page.getByRole('button', { name: 'Token probabilities' }).click();
      if (folder) {
        await ask(page, 'Tom has 5 apples and gives 2 away. How many are left?');
        await answered(page);
      }
      await page.keyboard.press('Control+.');
      await expectAccessible(page, 'options');
      await picture(page, scheme);
      await page.keyboard.press('Control+,');
      await expectAccessible(page, 'settings');
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      expect(ground).toBe(scheme === 'dark' ? 'rgb(26, 24, 21)' : 'rgb(250, 248, 244)');
      // A choice goes before the system.
      await page.getByLabel('Appearance').selectOption(scheme === 'dark' ? 'light' : 'dark');
      await expect
        .poll(() => page.evaluate(() => getComputedStyle(document.body).backgroundColor))
        .not.toBe(ground);
    });

    test('rich answers', async ({ page }) => {
      await page.goto(hostile());
      await ask(page, 'markdown');
      await answered(page);
      await expectAccessible(page, 'rich');
      await picture(page, `${scheme}-rich`);
    });
  });
}

test.describe('phone', () => {
  test.use({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });

  test('the list is a drawer, nothing is too wide', async ({ page }) => {
    await page.goto(quern());
    await fitsWidth(page);
    await ask(page, 'Tell me a story about a brave little mouse.');
    await answered(page);
    await fitsWidth(page);
    await expectAccessible(page, 'phone');
    await picture(page, 'phone');
    await expect(page.getByRole('navigation')).toBeHidden();
    await page.getByRole('button', { name: 'Open conversation list' }).click();
    await expect(page.getByRole('navigation')).toBeVisible();
    await picture(page, 'phone-list');
    await page.getByRole('button', { name: 'New chat' }).click();
    await expect(page.getByRole('navigation')).toBeHidden();
    await page.getByRole('button', { name: 'Options' }).click();
    await fitsWidth(page);
    await page.getByRole('button', { name: 'Close', exact: true }).click();
    await page.goto(`${hostile()}/`);
    await ask(page, 'markdown');
    await expect(answers(page).locator('.katex-display')).toBeVisible();
    await fitsWidth(page);
    await page.goto(`${quern()}/runs`);
    await expect(page.locator('.chart').first()).toBeVisible();
    await fitsWidth(page);
    await picture(page, 'phone-runs');
  });
});

test.describe('Chinese', () => {
  test.use({ locale: 'zh-CN' });

  test('the interface follows the browser, and the choice', async ({ page }) => {
    await page.goto(quern());
    await expect(page.getByRole('heading', { name: '想聊点什么？' })).toBeVisible();
    await expect(page.locator('html')).toHaveAttribute('lang', 'zh-Hans');
    await page.getByRole('textbox', { name: '消息' }).fill('Tell me a story about a brave little mouse.');
    await page.keyboard.press('Enter');
    await expect(page.getByRole('button', { name: '重新生成' })).toBeVisible();
    await page.keyboard.press('Control+.');
    await expectAccessible(page, 'Chinese');
    await picture(page, 'chinese');
    await page.keyboard.press('Control+,');
    await page.getByLabel('语言').selectOption('en');
    await expect(page.getByRole('dialog', { name: 'Settings' })).toBeVisible();
  });
});
