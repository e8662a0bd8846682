// Guesses how texts go on by a smaller model of the same vocabulary, for a scheduler that checks
// them: whatever is guessed, the texts stay the same, only the number of steps changes.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "model/forward.h"
#include "text/bpe.h"

namespace quern {

class Drafter {
 public:
  // `context`: positions that a text may have; `sequences`: texts at once. The small model's cache
  // has room for `capacity` positions over all texts.
  Drafter(const Network& network, ContextRules rules, int64_t context, int64_t sequences,
          int64_t capacity);

  struct Text {
    uint64_t id;                       // the same text at every call, until forget()
    std::span<const TokenId> history;  // all of it
    int64_t prompt_length;
    int64_t most;                   // ids wanted
    std::vector<TokenId>* guessed;  // gets them: fewer, or none, where they cannot be had soon
  };
  // All texts together. What a text has in common with its last call is not computed again.
  void guess(std::span<const Text> texts);
  void forget(uint64_t id);

  // Memory of the cache and the scratch, in bytes.
  static uint64_t memory_bytes(const Config& config, int64_t sequences, int64_t capacity);

 private:
  struct Known {
    Sequence sequence;
    std::vector<TokenId> fed;  // the ids that stand in the cache
  };
  void prepare(const Text& text, int64_t& room);

  const Config& config_;
  ContextRules rules_;
  int64_t context_;
  KvCache cache_;
  Runner runner_;
  std::unordered_map<uint64_t, Known> known_;

  // Of the call at hand.
  struct Job {
    const Text* text;
    Known* known;
  };
  std::vector<Job> jobs_;
  std::vector<BatchItem> batch_;
};

}  // namespace quern
