// What can be done beyond asking: going on, editing, files, presets, limits, exports.
import { readFileSync } from 'node:fs';
import { answered, answers, ask, box, expect, expectAccessible, hostile, quern, questions, short, test } from './support';

test.use({ settings: short });

test('a stopped answer goes on where it ended', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'endless');
  await expect(answers(page).locator('.prose')).toContainText('word word');
  await expect(answers(page)).toContainText(/\d+ tokens · [\d.]+ tokens\/s/); // while it comes
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(answers(page)).toContainText('Stopped.');
  const had = (await answers(page).locator('.prose').innerText()).length;
  const [request] = await Promise.all([
    page.waitForRequest('**/v1/chat/completions'),
    page.getByRole('button', { name: 'Continue' }).click(),
  ]);
  const sent = request.postDataJSON() as { messages: { role: string; content: string }[] };
  expect(sent).toMatchObject({ continue_final_message: true });
  expect(sent).not.toHaveProperty('add_generation_prompt'); // which quern serve refuses by name
  expect(sent.messages.at(-1)!.role).toBe('assistant');
  expect(sent.messages.at(-1)!.content.trim().length).toBe(had);
  await expect(answers(page)).toHaveCount(1);
  await expect
    .poll(async () => (await answers(page).locator('.prose').innerText()).length)
    .toBeGreaterThan(had);
  await answered(page);
});

test('any message can be edited or deleted', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'one');
  await answered(page);
  await ask(page, 'two');
  await answered(page);
  const first = answers(page).first();
  await first.getByRole('button', { name: 'Edit' }).click();
  await first.getByLabel('Edit message').fill('In my own words.');
  await first.getByRole('button', { name: 'Save', exact: true }).click();
  await expect(answers(page).first()).toContainText('In my own words.');
  await expect(answers(page).first()).toContainText('2/2'); // the old one is a version still
  await expect(questions(page)).toHaveCount(1);
  await answers(page).first().getByRole('button', { name: 'Previous version' }).click();
  await expect(questions(page)).toHaveCount(2);
  await questions(page).nth(1).hover();
  await questions(page).nth(1).getByRole('button', { name: 'Delete message' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
  await expect(questions(page)).toHaveCount(1);
  await page.reload();
  await expect(questions(page)).toHaveCount(1);
});

test('text files go along with a question, chosen or dropped', async ({ page }) => {
  await page.goto(hostile());
  const file = (name: string, text: string | Buffer) => ({
    name,
    mimeType: 'application/octet-stream',
    buffer: Buffer.from(text as string),
  });
  await page.getByLabel('Attach text files').setInputFiles([file('a.md', '# A\n```\ncode\n```\n')]);
  const data = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(['b, c\n'], 'b.csv'));
    return transfer;
  });
  await page.dispatchEvent('body', 'dragover', { dataTransfer: data });
  await page.dispatchEvent('body', 'drop', { dataTransfer: data });
  await expect(page.getByText('b.csv')).toBeVisible();
  await page.getByLabel('Attach text files').setInputFiles([file('pic.png', Buffer.from([0x89, 0x50, 0xff, 0]))]);
  await expect(page.getByText('pic.png is not a text file in UTF-8')).toBeVisible();
  const [request] = await Promise.all([page.waitForRequest('**/v1/chat/completions'), ask(page, 'look')]);
  const { messages } = request.postDataJSON() as { messages: { content: string }[] };
  expect(messages[0]!.content).toBe('a.md\n````\n# A\n```\ncode\n```\n````\n\nb.csv\n```\nb, c\n```\n\nlook');
  await answered(page);
  await questions(page).getByText('a.md').click();
  await expect(questions(page).locator('pre').first()).toContainText('# A');
  await expectAccessible(page, 'files');
  await page.reload();
  await expect(questions(page).getByText('b.csv')).toBeVisible();
});

test('presets keep a way of talking, and one is for new conversations', async ({ page }) => {
  await page.goto(quern());
  await page.getByRole('button', { name: 'Options' }).click();
  await page.getByLabel('System prompt').fill('You are a pirate.');
  await page.getByRole('button', { name: 'Save as preset' }).click();
  await page.getByLabel('Name of the preset').fill('Pirate');
  await page.keyboard.press('Enter');
  await page.getByLabel('Use for new conversations').check();
  await page.getByRole('button', { name: 'New chat' }).click();
  await expect(page.getByLabel('System prompt')).toHaveValue('You are a pirate.');
  await page.getByLabel('System prompt').fill('');
  await page.getByLabel('Preset').selectOption('none');
  await page.getByLabel('Preset').selectOption('Pirate');
  await expect(page.getByLabel('System prompt')).toHaveValue('You are a pirate.');
  await expectAccessible(page, 'presets');
  await page.reload();
  await expect(page.getByRole('complementary')).toHaveCount(0);
  await page.getByRole('button', { name: 'Options' }).click();
  await expect(page.getByLabel('System prompt')).toHaveValue('You are a pirate.');
  await page.getByLabel('Preset').selectOption('Pirate');
  await page.getByRole('button', { name: 'Delete preset' }).click();
  await page.getByRole('button', { name: 'New chat' }).click();
  await expect(page.getByLabel('System prompt')).toHaveValue('');
});

test('stop strings and a JSON schema go to the server', async ({ page }) => {
  await page.goto(quern());
  await page.getByRole('button', { name: 'Options' }).click();
  const schema = page.getByLabel('JSON schema of the answer');
  await schema.fill('{"type": ');
  await schema.press('Tab');
  await expect(page.getByText('This is not JSON; not used.')).toBeVisible();
  await schema.fill('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}');
  await schema.press('Tab');
  await expect(page.getByText('This is not JSON; not used.')).toHaveCount(0);
  const [request] = await Promise.all([page.waitForRequest('**/v1/chat/completions'), ask(page, 'Count')]);
  expect(request.postDataJSON()).toMatchObject({
    response_format: { type: 'json_schema', json_schema: { schema: { type: 'object' } } },
  });
  await answered(page);
  await expect(answers(page).locator('.prose')).toContainText('{');
  await schema.fill('');
  await page.getByLabel('Stop strings, one per line').fill('END\n###\n');
  await page.getByLabel('Stop strings, one per line').press('Tab');
  const [second] = await Promise.all([page.waitForRequest('**/v1/chat/completions'), ask(page, 'On')]);
  expect(second.postDataJSON()).toMatchObject({ stop: ['END', '###'] });
  expect(second.postDataJSON()).not.toHaveProperty('response_format');
});

test('the model has a card, the conversation a meter', async ({ page }) => {
  await page.goto(quern());
  await ask(page, 'Hello');
  await answered(page);
  await page.reload();
  await expect(page.locator('.context')).toContainText(/\d+ of [\d,]+ tokens/);
  await page.getByRole('button', { name: 'Options' }).click();
  const card = page.locator('.card');
  await expect(card).toContainText('qwen');
  await expect(card).toContainText(/[\d.]+ M parameters, \d+ MB/);
  await expect(card).toContainText(/[\d,]+ tokens/);
});

test('a conversation is exported as Markdown', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'hello there');
  await answered(page);
  const list = page.getByRole('navigation', { name: 'Conversations' });
  await list.getByRole('button', { name: 'More: hello there' }).click();
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Export as Markdown' }).click(),
  ]);
  expect(download.suggestedFilename()).toBe('quern-conversation.md');
  expect(readFileSync(await download.path(), 'utf8')).toBe(
    '# hello there\n\n## User\n\nhello there\n\n## Assistant\n\nyou said hello there\n',
  );
});

test('a thousand conversations are listed without delay, and all can be found', async ({ page }) => {
  await page.goto(quern());
  const conversations = Array.from({ length: 1000 }, (_, i) => ({
    id: `c${i}`,
    title: `Conversation number ${i}`,
    created: i,
    updated: i,
    options: { model: '', system: '', sampling: {} },
    messages: [{ id: 'm', parent: null, role: 'user', text: `about topic ${i} `.repeat(50), created: i }],
    chosen: {},
  }));
  const archive = JSON.stringify({ format: 'quern-conversations', version: 1, conversations });
  await page.getByRole('button', { name: 'Settings' }).click();
  await page
    .getByLabel('Import')
    .setInputFiles({ name: 'many.json', mimeType: 'application/json', buffer: Buffer.from(archive) });
  await expect(page.getByText('Imported: 1000')).toBeVisible();
  const list = page.getByRole('navigation', { name: 'Conversations' });
  expect(await list.getByRole('listitem').count()).toBeLessThan(300);
  await list.locator('.list').evaluate((element) => {
    const timer = setInterval(() => (element.scrollTop = element.scrollHeight), 30);
    setTimeout(() => clearInterval(timer), 15_000);
  });
  await expect(list.getByRole('listitem')).toHaveCount(1000);
  await expect(list.getByRole('button', { name: 'Conversation number 0', exact: true })).toBeVisible();
  await page.getByLabel('Search conversations').fill('topic 123 ');
  await expect(list.getByRole('listitem')).toHaveCount(1);
  await box(page).focus();
});
