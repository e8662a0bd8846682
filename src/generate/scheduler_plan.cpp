// Who runs, who waits, and what a step takes in.
#include <algorithm>

#include "core/error.h"
#include "generate/scheduler_stream.h"

namespace quern {
namespace {

constexpr int64_t kLeastPrompt = 64;  // tokens of prompts a step makes room for, whatever they take

}  // namespace

// Frees pages that only the prefix cache holds until `pages` are free.
bool Scheduler::make_room(int64_t pages) {
  while (cache_.free_pages() < pages) {
    if (!prefixes_.evict()) return false;
  }
  return true;
}

// Ends what took longer than it may: with what it has, or with an error where it never began.
void Scheduler::expire() {
  const auto overdue = [&](const StreamPtr& stream) {
    const double waited = seconds_since(stream->arrived);
    const double most = stream->request.max_seconds;
    const bool too_long = most > 0 && waited > most;
    if (stream->started) return too_long;
    return too_long || (options_.queue_seconds > 0 && waited > options_.queue_seconds);
  };
  const auto take = [&](auto& list) {
    for (auto at = list.begin(); at != list.end();) {
      if (!overdue(*at)) {
        ++at;
        continue;
      }
      StreamPtr stream = std::move(*at);
      at = list.erase(at);
      if (stream->started) {
        end(*stream, FinishReason::Length);
      } else {
        stream->completion.failure = std::make_exception_ptr(
            Error(Kind::NoResources, "the request waited too long for its turn",
                  "try again when the server is less busy"));
        end(*stream, FinishReason::Failed);
      }
      finish(std::move(stream));
    }
  };
  take(running_);
  take(waiting_);
}

// Takes over what is cached of the prompt and reserves pages for the rest of it.
bool Scheduler::try_admit(Stream& stream) {
  const bool reuse = stream.shares();
  const int64_t shareable = stream.shareable();
  int64_t cached = 0;
  if (reuse) {
    cached = prefixes_.advance(stream.sequence, stream.place, stream.history, shareable);
  }
  // A sequence that cannot be computed again must never have to give its pages back.
  const int64_t most =
      policy_.recomputed
          ? std::min(options_.context, stream.length() + 1)
          : std::min(options_.context, stream.prompt_length + stream.request.max_new_tokens);
  const int64_t needed = pages_for(most) - stream.sequence.page_count();
  // A page for each of those who run, so that they can go on for a while.
  if (!make_room(needed + (running_.empty() ? 0 : size_of(running_)))) {
    stream.sequence.release();
    stream.place.node = nullptr;
    return false;
  }
  if (reuse && stream.sequence.length() < shareable) {
    cached += prefixes_.copy_partial(stream.sequence, stream.place, stream.history, shareable);
  }
  stream.sequence.reserve(most);
  stream.kept_length = cached / kPageTokens * kPageTokens;
  const int64_t of_prompt = std::min(cached, stream.prompt_length);
  if (stream.completion.ids.empty()) {
    stream.completion.cached_tokens = of_prompt;
    counts_.cached_tokens += of_prompt;
  }
  return true;
}

void Scheduler::admit() {
  if (blocked_) return;
  while (!waiting_.empty() && size_of(running_) < max_sequences_) {
    Stream& stream = *waiting_.front();
    if (!try_admit(stream)) {
      blocked_ = true;
      return;
    }
    if (!stream.started) {
      stream.started = Clock::now();
      stream.completion.queue_seconds = seconds_since(stream.arrived);
    }
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Scheduler::preempt_last() {
  StreamPtr stream = std::move(running_.back());
  running_.pop_back();
  stream->sequence.release();
  stream->guessed.clear();
  if (drafter_ != nullptr) drafter_->forget(stream->id);
  stream->place.node = nullptr;
  stream->kept_length = 0;
  stream->completion.embedding.clear();
  ++counts_.preemptions;
  blocked_ = true;  // until a page comes free
  waiting_.push_front(std::move(stream));
}

// Pages for `tokens` positions of running_[index], taken from the youngest where there are no
// others. False when it had to give way itself.
bool Scheduler::grow(size_t index, int64_t tokens) {
  Stream& stream = *running_[index];
  const int64_t missing = pages_for(tokens) - stream.sequence.page_count();
  while (!make_room(missing)) {
    const bool itself = running_.size() - 1 == index;
    preempt_last();
    if (itself) return false;
  }
  stream.sequence.reserve(tokens);
  return true;
}

// Begins a sequence anew that has outgrown its rotary frequencies: all of it is fed again.
void Scheduler::restart(Stream& stream) {
  stream.sequence.restart(config_, stream.length());
  stream.guessed.clear();
  stream.place.node = nullptr;
  stream.place.key.alpha = stream.sequence.rotation();
  stream.kept_length = 0;
}

// How many ids may be guessed: the last that a request makes is never one, and none is fed beyond a
// length that restarts the sequence.
int64_t Scheduler::guesses_wanted(const Stream& stream) const {
  if (!stream.decoding() || stream.request.constraint != nullptr) return 0;
  const int64_t left = std::min(options_.context - stream.length(),
                                stream.request.max_new_tokens - size_of(stream.completion.ids)) -
                       1;
  int64_t most = std::min(left, options_.speculate);
  while (most > 0 && stream.sequence.outgrown_by(config_, stream.length() + most)) --most;
  return std::max<int64_t>(most, 0);
}

// A text goes on as it did the last time its newest ids stood in it.
void Scheduler::look_up(Stream& stream, int64_t most) const {
  constexpr int64_t kMatch = 3;
  if (stream.length() <= kMatch) return;
  const auto tail = stream.history.end() - kMatch;
  for (auto at = tail - 1; at >= stream.history.begin(); --at) {
    if (!std::equal(at, at + kMatch, tail)) continue;
    const auto next = at + kMatch;
    const auto count = std::min<int64_t>(most, stream.history.end() - next);
    stream.guessed.assign(next, next + count);
    return;
  }
}

void Scheduler::guess() {
  texts_.clear();
  for (const StreamPtr& stream : running_) {
    stream->guessed.clear();
    stream->guess_failed = false;
    const int64_t most = guesses_wanted(*stream);
    if (most == 0) continue;
    if (drafter_ == nullptr) {
      look_up(*stream, most);
    } else {
      texts_.push_back(
          {stream->id, stream->history, stream->prompt_length, most, &stream->guessed});
    }
  }
  if (texts_.empty()) return;
  drafter_->guess(texts_);
  // The draft's output layer may have rows that this model has no embedding for.
  for (const Drafter::Text& text : texts_) {
    const auto past = std::find_if(text.guessed->begin(), text.guessed->end(),
                                   [&](TokenId id) { return id >= config_.vocab; });
    text.guessed->erase(past, text.guessed->end());
  }
}

void Scheduler::add_item(Stream& stream, int64_t count) {
  const int64_t first = stream.sequence.length();
  const auto ids = std::span<const TokenId>(stream.history)
                       .subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  const bool whole = first + count == stream.length();
  BatchItem item = {&stream.sequence, ids, whole && !stream.prompt_only() ? 1 : 0,
                    stream.request.adapter.get()};
  if (stream.request.pooling == Pooling::Mean) {
    item.outputs = count;
  } else if (stream.request.prompt_logprobs >= 0) {
    const int64_t wanted = first + count - (stream.request.prompt_logprobs_from - 1);
    item.outputs = std::clamp(wanted, item.outputs, count);
  } else if (stream.request.pooling == Pooling::Last) {
    item.outputs = whole ? 1 : 0;
  }
  batch_.push_back(item);
  owners_.push_back(&stream);
}

// How many tokens of prompts a step may take: as many as take about the time that is given or that
// a step takes anyway, whichever is more.
int64_t Scheduler::prompt_room(bool beside_streams) const {
  if (prompt_token_seconds_ == 0) return options_.chunk;
  const double seconds = std::max(options_.step_seconds, base_seconds_) * (beside_streams ? 1 : 4);
  const double tokens = std::min(seconds / prompt_token_seconds_, 1e9);
  return std::clamp(static_cast<int64_t>(tokens), std::min(kLeastPrompt, options_.chunk),
                    options_.chunk);
}

// What steps take: a time of their own, and one for each token of a prompt.
void Scheduler::learn_times(double seconds, int64_t prompt_tokens) {
  const auto blend = [](double& mean, double now) {
    mean = mean == 0 ? now : 0.7 * mean + 0.3 * now;
  };
  if (prompt_tokens == 0) {
    blend(base_seconds_, seconds);
  } else if (prompt_tokens >= kLeastPrompt && seconds > base_seconds_) {
    blend(prompt_token_seconds_, (seconds - base_seconds_) / static_cast<double>(prompt_tokens));
  }
}

// A prompt of this step computes the page that `stream` needs next: it waits for that.
bool Scheduler::about_to_be_cached(const Stream& stream) const {
  if (!stream.shares() || stream.sequence.length() % kPageTokens != 0) return false;
  const int64_t page_end = (stream.sequence.length() / kPageTokens + 1) * kPageTokens;
  if (page_end > stream.shareable()) return false;
  return std::any_of(owners_.begin(), owners_.end(), [&](const Stream* other) {
    return other->request.reuse_prefix && other->place.key == stream.place.key &&
           other->needed_length() >= page_end && other->sequence.length() < page_end &&
           std::equal(stream.history.begin(), stream.history.begin() + page_end,
                      other->history.begin());
  });
}

// The oldest prompt gets half of the room, so that it comes to its end; those with the fewest
// tokens left share the rest, so that short ones need not wait for long ones.
void Scheduler::plan_prompts(int64_t room) {
  if (filling_.empty()) return;
  const auto left = [](const Stream* stream) {
    return stream->needed_length() - stream->sequence.length();
  };
  Stream* oldest = filling_.front();
  if (!policy_.chunked) {
    // A prompt goes in whole, and alone if it is longer than a chunk.
    for (Stream* stream : filling_) {
      if (stream != oldest && left(stream) > room) continue;
      add_item(*stream, left(stream));
      room -= left(stream);
    }
    return;
  }
  const int64_t share =
      filling_.size() == 1 ? room : std::min(room, std::max(room / 2, int64_t{1}));
  std::vector<Stream*> others(filling_.begin() + 1, filling_.end());
  std::stable_sort(others.begin(), others.end(),
                   [&](const Stream* a, const Stream* b) { return left(a) < left(b); });
  int64_t of_oldest = std::min(left(oldest), share);
  int64_t of_others = room - of_oldest;
  int64_t wanted = 0;
  for (const Stream* stream : others) wanted += left(stream);
  if (wanted < of_others) of_oldest = std::min(left(oldest), room - wanted);
  add_item(*oldest, of_oldest);
  of_others = room - of_oldest;
  for (Stream* stream : others) {
    if (of_others <= 0) break;
    if (about_to_be_cached(*stream)) continue;
    const int64_t count = std::min(left(stream), of_others);
    add_item(*stream, count);
    of_others -= count;
  }
}

void Scheduler::plan() {
  batch_.clear();
  owners_.clear();
  filling_.clear();
  guess();
  for (size_t i = 0; i < running_.size(); ++i) {
    Stream& stream = *running_[i];
    if (stream.sequence.outgrown_by(config_, stream.length())) restart(stream);
    if (!stream.decoding()) {
      if (stream.sequence.page_count() == 0 && !grow(i, stream.length() + 1)) break;
      continue;
    }
    if (!grow(i, stream.length() + size_of(stream.guessed))) break;
    // Guesses stand behind the history while they are fed; its memory is reserved for them.
    stream.history.insert(stream.history.end(), stream.guessed.begin(), stream.guessed.end());
    const int64_t count = 1 + size_of(stream.guessed);
    batch_.push_back({&stream.sequence,
                      std::span<const TokenId>(stream.history).last(static_cast<size_t>(count)),
                      count, stream.request.adapter.get()});
    owners_.push_back(&stream);
    counts_.guessed_tokens += size_of(stream.guessed);
  }
  const bool beside_streams = !batch_.empty();
  for (const StreamPtr& stream : running_) {
    if (stream->decoding() || !stream->guessed.empty()) continue;
    // What a neighbour has computed meanwhile is taken over.
    if (stream->shares() && stream->sequence.length() % kPageTokens == 0) {
      const int64_t taken =
          prefixes_.advance(stream->sequence, stream->place, stream->history, stream->shareable());
      stream->kept_length = std::max(stream->kept_length, stream->sequence.length());
      if (stream->completion.ids.empty()) {
        stream->completion.cached_tokens += taken;
        counts_.cached_tokens += taken;
      }
    }
    filling_.push_back(stream.get());
  }
  plan_prompts(prompt_room(beside_streams));

  group_by_adapter();
  int64_t tokens = 0;
  for (const BatchItem& item : batch_) tokens += size_of(item.ids);
  if (runner_ == nullptr || runner_->max_tokens() < tokens) make_runner(tokens);
}

// Rows of one adapter stand together, so that each of its matrices is read once a step.
void Scheduler::group_by_adapter() {
  const auto of = [&](size_t i) {
    const auto& adapter = owners_[i]->request.adapter;
    return adapter == nullptr ? uint64_t{0} : adapter->id();
  };
  std::vector<size_t> order(batch_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  if (std::ranges::is_sorted(order, {}, of)) return;
  std::ranges::stable_sort(order, {}, of);
  const std::vector<BatchItem> items = batch_;
  const std::vector<Stream*> owners = owners_;
  for (size_t i = 0; i < order.size(); ++i) {
    batch_[i] = items[order[i]];
    owners_[i] = owners[order[i]];
  }
}

void Scheduler::make_runner(int64_t tokens) {
  const int64_t steady = steady_tokens(options_, max_sequences_);
  untouched_.clear();
  runner_.reset();
  runner_ = std::make_unique<Runner>(network_, std::max(tokens, steady), logit_rows(max_sequences_),
                                     options_.adapter_rank);
}

bool Scheduler::prepare() {
  constexpr size_t kAtOnce = size_t{8} << 20, kMostOfCache = size_t{128} << 20;
  constexpr size_t kSystemPage = 4096;
  if (!std::exchange(prepared_, true)) {
    if (runner_ == nullptr) make_runner(0);
    untouched_ = runner_->scratch();
    // Two pages for each sequence, and not too much.
    const auto wanted = static_cast<size_t>(2 * max_sequences_ * cache_.page_bytes());
    const std::span<std::byte> cache = cache_.memory();
    untouched_.push_back(cache.first(std::min({wanted, kMostOfCache, cache.size()})));
  }
  for (size_t left = kAtOnce; left > 0 && !untouched_.empty();) {
    std::span<std::byte>& part = untouched_.back();
    const size_t count = std::min(left, part.size());
    for (size_t i = 0; i < count; i += kSystemPage) {
      volatile std::byte& byte = part[i];
      byte = byte;  // what it holds stays
    }
    left -= count;
    part = part.subspan(count);
    if (part.empty()) untouched_.pop_back();
  }
  return !untouched_.empty();
}

}  // namespace quern
