#include "generate/prefix_cache.h"

#include <algorithm>
#include <cassert>

namespace quern {
namespace {

constexpr int64_t kPageTokens = KvLayout::page_tokens;
// Copying a page moves as much memory as computing a few tokens reads.
constexpr int64_t kWorthCopying = 4;

}  // namespace

struct PrefixCache::Node {
  Node* parent = nullptr;
  Key key;                      // of a root
  std::vector<TokenId> tokens;  // a full page of them, or fewer at the end of a sequence
  std::byte* page = nullptr;
  std::vector<std::unique_ptr<Node>> children;
  std::list<Node*>::iterator age;

  // The child whose page is full and holds just these tokens.
  Node* child(std::span<const TokenId> wanted) const {
    for (const auto& node : children) {
      if (std::ranges::equal(node->tokens, wanted)) return node.get();
    }
    return nullptr;
  }
};

PrefixCache::PrefixCache(KvCache& pages) : pages_(&pages) {}

PrefixCache::~PrefixCache() {
  for (Node* node : by_age_) pages_->release(node->page);
}

PrefixCache::Node* PrefixCache::root(const Key& key) {
  auto& node = roots_[key];
  if (node == nullptr) {
    node = std::make_unique<Node>();
    node->key = key;
  }
  return node.get();
}

// The node and those above it become the newest, parents before children.
void PrefixCache::touch(Node* node) {
  for (; node->parent != nullptr; node = node->parent) {
    by_age_.splice(by_age_.begin(), by_age_, node->age);
  }
}

void PrefixCache::remove(Node* node) {
  by_age_.erase(node->age);
  pages_->release(node->page);
  Node* parent = node->parent;
  std::erase_if(parent->children, [&](const auto& child) { return child.get() == node; });
  if (parent->parent == nullptr && parent->children.empty()) roots_.erase(Key(parent->key));
}

int64_t PrefixCache::advance(Sequence& sequence, Place& place, std::span<const TokenId> ids,
                             int64_t limit) {
  const int64_t before = sequence.length();
  const Node* at = place.node;
  if (at == nullptr) {
    const auto found = roots_.find(place.key);
    if (found == roots_.end()) return 0;
    at = found->second.get();
  }
  while (sequence.length() + kPageTokens <= limit) {
    Node* next = at->child(ids.subspan(static_cast<size_t>(sequence.length()), kPageTokens));
    if (next == nullptr) break;
    sequence.share_page(next->page);
    place.node = next;
    at = next;
  }
  if (sequence.length() > before) touch(place.node);
  return sequence.length() - before;
}

int64_t PrefixCache::copy_partial(Sequence& sequence, const Place& place,
                                  std::span<const TokenId> ids, int64_t limit) {
  const auto root = roots_.find(place.key);
  if (root == roots_.end()) return 0;
  const Node* at = place.node != nullptr ? place.node : root->second.get();
  const auto wanted = ids.first(static_cast<size_t>(limit)).subspan(size_t(sequence.length()));
  Node* best = nullptr;
  int64_t longest = kWorthCopying - 1;
  for (const auto& node : at->children) {
    const auto common =
        std::mismatch(node->tokens.begin(), node->tokens.end(), wanted.begin(), wanted.end())
            .first -
        node->tokens.begin();
    if (common <= longest) continue;
    longest = common;
    best = node.get();
  }
  if (best == nullptr) return 0;
  sequence.copy_page(best->page, longest);
  touch(best);
  return longest;
}

void PrefixCache::keep(Sequence& sequence, Place& place, std::span<const TokenId> ids,
                       int64_t length, bool tail) {
  const auto depth = [&] {
    int64_t pages = 0;
    for (const Node* node = place.node; node != nullptr && node->parent != nullptr;
         node = node->parent) {
      ++pages;
    }
    return pages;
  };
  for (int64_t index = depth();; ++index) {
    const int64_t begin = index * kPageTokens;
    const int64_t count = std::min(kPageTokens, length - begin);
    if (count <= 0 || (count < kPageTokens && !tail)) return;
    const auto tokens = ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    Node* parent = place.node != nullptr ? place.node : root(place.key);
    if (Node* same = parent->child(tokens)) {
      if (count == kPageTokens) sequence.replace_page(index, same->page);
      touch(same);
      place.node = same;
      continue;
    }
    if (count < kPageTokens && std::ranges::any_of(parent->children, [&](const auto& node) {
          return node->tokens.size() > tokens.size() &&
                 std::equal(tokens.begin(), tokens.end(), node->tokens.begin());
        })) {
      return;  // a longer one is there
    }
    // What this page continues needs no page of its own any more.
    std::vector<Node*> shorter;
    for (const auto& node : parent->children) {
      if (node->tokens.size() < tokens.size() && node->children.empty() &&
          std::equal(node->tokens.begin(), node->tokens.end(), tokens.begin())) {
        shorter.push_back(node.get());
      }
    }
    auto made = std::make_unique<Node>();
    Node* node = made.get();
    node->parent = parent;
    node->tokens.assign(tokens.begin(), tokens.end());
    node->page = sequence.pages()[index];
    pages_->retain(node->page);
    by_age_.push_front(node);
    node->age = by_age_.begin();
    parent->children.push_back(std::move(made));
    for (Node* old : shorter) remove(old);
    touch(node);
    place.node = node;
  }
}

bool PrefixCache::evict() {
  for (auto node = by_age_.rbegin(); node != by_age_.rend(); ++node) {
    if (!(*node)->children.empty() || pages_->users((*node)->page) > 1) continue;
    remove(*node);
    return true;
  }
  return false;
}

}  // namespace quern
