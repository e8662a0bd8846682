// Pages of the KV cache kept for prompts to come: a tree in which a node is one page, filled with
// the tokens that its path from the root spells. Live sequences share the pages of full nodes; of
// a page that agrees only in its first tokens they take a copy.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/kv_cache.h"
#include "text/bpe.h"

namespace quern {

class PrefixCache {
 public:
  // What must agree before tokens do. Keys are rotated by the factor of dynamic NTK, so pages made
  // under different ones are different; so are those of different adapters.
  struct Key {
    std::string salt;
    double alpha = 1;
    uint64_t adapter = 0;  // Adapter::id(), 0 for none
    auto operator<=>(const Key&) const = default;
  };
  struct Node;
  // Where a sequence stands in the tree: the node of its last shared page. Valid as long as the
  // sequence keeps its pages.
  struct Place {
    Key key;
    Node* node = nullptr;
  };

  explicit PrefixCache(KvCache& pages);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Lets `sequence`, which stands at `place`, go on through pages whose tokens are those of `ids`,
  // as far as `limit` positions. Returns how many it took over.
  int64_t advance(Sequence& sequence, Place& place, std::span<const TokenId> ids, int64_t limit);
  // At a page's begin: copies the page that agrees with the most of the next ids, if any does.
  int64_t copy_partial(Sequence& sequence, const Place& place, std::span<const TokenId> ids,
                       int64_t limit);

  // Keeps the sequence's full pages up to `length` positions, and with `tail` the page begun last.
  // A page that is there already takes the place of the sequence's own: they hold the same bytes.
  void keep(Sequence& sequence, Place& place, std::span<const TokenId> ids, int64_t length,
            bool tail);

  // Gives back the page that was used the longest ago, of those that no sequence uses. False when
  // there is none.
  bool evict();

  int64_t kept_pages() const noexcept { return static_cast<int64_t>(by_age_.size()); }

 private:
  Node* root(const Key& key);
  void touch(Node* node);
  void remove(Node* node);

  KvCache* pages_;
  std::map<Key, std::unique_ptr<Node>> roots_;
  std::list<Node*> by_age_;  // newest first; a parent before its children
};

}  // namespace quern
