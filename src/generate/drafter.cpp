#include "generate/drafter.h"

#include <algorithm>

#include "generate/sampler.h"

namespace quern {
namespace {

constexpr int64_t kChunk = 512;  // ids of histories that one call catches up with
constexpr int64_t kLogits = 64;

int64_t size_of(const auto& list) { return static_cast<int64_t>(list.size()); }

}  // namespace

Drafter::Drafter(const Network& network, ContextRules rules, int64_t context, int64_t sequences,
                 int64_t capacity)
    : config_(network.config),
      rules_(rules),
      context_(std::min(context, network.config.max_context)),
      cache_(network.backend, network.config, DType::F32, capacity, sequences),
      runner_(network, kChunk + sequences, std::min(sequences, kLogits)) {}

uint64_t Drafter::memory_bytes(const Config& config, int64_t sequences, int64_t capacity) {
  const uint64_t positions = static_cast<uint64_t>(capacity + sequences * KvLayout::page_tokens);
  return KvCache::bytes_per_token(config, DType::F32) * positions +
         Runner::memory_bytes(config, kChunk + sequences, std::min(sequences, kLogits));
}

void Drafter::forget(uint64_t id) { known_.erase(id); }

// Leaves in the cache what agrees with the history and puts the ids that follow into the batch, as
// far as there is room; a job where the history's last id is among them: then there is a guess.
void Drafter::prepare(const Text& text, int64_t& room) {
  const int64_t length = size_of(text.history);
  if (room <= 0 || length + text.most > context_) return;
  auto found = known_.find(text.id);
  if (found == known_.end()) {
    found =
        known_.emplace(text.id, Known{Sequence(cache_, config_, rules_, text.prompt_length), {}})
            .first;
  }
  Known& known = found->second;
  const auto differs =
      std::mismatch(known.fed.begin(), known.fed.end(), text.history.begin(), text.history.end());
  const int64_t agrees = std::min<int64_t>(differs.first - known.fed.begin(), length - 1);
  known.fed.resize(static_cast<size_t>(agrees));
  known.sequence.truncate(agrees);
  const int64_t count = std::min(length - agrees, room);
  const int64_t pages = (length + text.most + KvLayout::page_tokens - 1) / KvLayout::page_tokens;
  if (pages - known.sequence.page_count() > cache_.free_pages()) return;
  known.sequence.reserve(length + text.most);
  const bool whole = agrees + count == length;
  const auto ids = text.history.subspan(static_cast<size_t>(agrees), static_cast<size_t>(count));
  batch_.push_back({&known.sequence, ids, whole ? 1 : 0});
  known.fed.insert(known.fed.end(), ids.begin(), ids.end());
  room -= count;
  if (whole) jobs_.push_back({&text, &known});
}

void Drafter::guess(std::span<const Text> texts) {
  batch_.clear();
  jobs_.clear();
  int64_t room = kChunk;
  for (const Text& text : texts) {
    text.guessed->clear();
    if (text.most > 0) prepare(text, room);
  }
  while (!batch_.empty()) {
    const ConstRows hidden = runner_.forward(batch_, cache_);
    for (int64_t first = 0; first < hidden.rows; first += runner_.max_logits()) {
      const int64_t last = std::min(hidden.rows, first + runner_.max_logits());
      const MutRows logits = runner_.logits(hidden.slice(first, last));
      for (int64_t r = first; r < last; ++r) {
        const TokenId id = argmax({logits.row(r - first), static_cast<size_t>(logits.cols)});
        jobs_[static_cast<size_t>(r)].text->guessed->push_back(id);
      }
    }
    // Next the newest guess of each text that wants more.
    std::erase_if(jobs_, [&](const Job& job) {
      return size_of(*job.text->guessed) >= job.text->most ||
             job.text->guessed->back() >= config_.vocab;
    });
    batch_.clear();
    for (const Job& job : jobs_) {
      job.known->fed.push_back(job.text->guessed->back());
      batch_.push_back({&job.known->sequence, std::span(job.known->fed).last(1), 1});
    }
  }
}

}  // namespace quern
