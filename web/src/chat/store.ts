// Conversations in the browser's own database. Other tabs hear of changes.
import type { Conversation } from './conversation';

const STORE = 'conversations';

export class ConversationStore {
  private readonly database: Promise<IDBDatabase>;
  private readonly channel = new BroadcastChannel('quern-conversations');

  constructor(onChange: () => void) {
    this.database = open();
    this.channel.onmessage = onChange;
  }

  async all(): Promise<Conversation[]> {
    return this.run('readonly', (store) => store.getAll() as IDBRequest<Conversation[]>);
  }

  async put(conversations: Conversation[]): Promise<void> {
    await this.run('readwrite', (store) => {
      let last: IDBRequest | undefined;
      for (const conversation of conversations) last = store.put(conversation);
      return last ?? store.count();
    });
    this.channel.postMessage('changed');
  }

  async remove(ids: string[]): Promise<void> {
    await this.run('readwrite', (store) => {
      let last: IDBRequest | undefined;
      for (const id of ids) last = store.delete(id);
      return last ?? store.count();
    });
    this.channel.postMessage('changed');
  }

  private async run<T>(
    mode: IDBTransactionMode,
    work: (store: IDBObjectStore) => IDBRequest<T>,
  ): Promise<T> {
    const transaction = (await this.database).transaction(STORE, mode);
    const request = work(transaction.objectStore(STORE));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }
}

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open('quern', 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
