#include "generate/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <chrono>

#include "core/error.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kPageTokens = KvLayout::page_tokens;
constexpr int64_t kLeastPrompt = 64;  // tokens of prompts a step makes room for, whatever they take

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

int64_t size_of(const auto& list) { return static_cast<int64_t>(list.size()); }

}  // namespace

std::string_view name(FinishReason reason) noexcept {
  constexpr std::string_view kNames[] = {"stop", "length", "interrupted", "failed"};
  return kNames[static_cast<size_t>(reason)];
}

// A request from its arrival to its end.
struct Scheduler::Stream {
  Stream(Id number, Request wanted, std::vector<TokenId> prompt, Listener to, KvCache& cache,
         const Config& config, const EngineOptions& options, const Tokenizer* tokenizer,
         SamplerScratch& scratch)
      : id(number),
        request(std::move(wanted)),
        listener(std::move(to)),
        history(std::move(prompt)),
        prompt_length(size_of(history)),
        sequence(cache, config, options.rules, prompt_length),
        sampler(request.sampling, config.output_vocab, request.stream, &scratch),
        stop(request.stop.strings) {
    const int64_t most = std::min(request.max_new_tokens, options.context - prompt_length);
    history.reserve(static_cast<size_t>(prompt_length + most));
    completion.ids.reserve(static_cast<size_t>(most));
    completion.prompt_tokens = prompt_length;
    if (tokenizer != nullptr) decoder.emplace(*tokenizer, true, request.text_start);
    place.key = {request.cache_salt, sequence.alpha()};
  }

  int64_t length() const { return size_of(history); }
  // All but the newest id is in the cache: it generates.
  bool decoding() const { return sequence.length() == length() - 1 && !completion.ids.empty(); }
  // Nothing is left to be made once the prompt is in.
  bool prompt_only() const { return request.max_new_tokens == 0; }

  Id id;
  Request request;
  Listener listener;
  std::vector<TokenId> history;  // prompt and new tokens
  int64_t prompt_length;
  Sequence sequence;
  Sampler sampler;
  StopStrings stop;
  std::optional<StreamDecoder> decoder;
  Completion completion;
  PrefixCache::Place place;
  int64_t kept_length = 0;       // of the history: its full pages are in the prefix cache
  std::vector<TokenId> guessed;  // ids fed after the history's last, to be checked
  bool guess_failed = false;
  Clock::time_point arrived = Clock::now();
  std::optional<Clock::time_point> started, first_token;
  bool done = false;
};

Scheduler::Scheduler(Backend& backend, const Config& config, const Weights& weights,
                     const Tokenizer* tokenizer, const EngineOptions& options, int64_t capacity,
                     int64_t sequences)
    : backend_(backend),
      config_(config),
      weights_(weights),
      tokenizer_(tokenizer),
      options_(options),
      max_sequences_(sequences),
      cache_(backend, config, options.kv_type, capacity, sequences),
      prefixes_(cache_) {
  if (options_.context == 0) options_.context = config.max_context;
  options_.context = std::min(options_.context, cache_.pages() * kPageTokens);
  // The 8-bit cache takes one scale for a whole call: guesses in it would change the bytes.
  if (options_.kv_type == DType::U8) options_.speculate = 0;
}

Scheduler::~Scheduler() = default;

// The prompt as it will be fed, checked against vocabulary and context.
std::vector<TokenId> Scheduler::fit(Request& request) const {
  if (request.ids.empty()) throw_bad_input("the prompt is empty");
  request.sampling.check();
  check_ids(request.ids, config_, "the prompt");
  const int64_t length = size_of(request.ids);
  const int64_t room = request.max_new_tokens == 0 ? options_.context : options_.context - 1;
  if (length <= room) return std::move(request.ids);
  if (!request.truncate) {
    throw_bad_input(
        fmt::format("the prompt has {} tokens, the context {}", length, options_.context),
        "shorten it, raise --context, or pass --truncate to cut its beginning");
  }
  const int64_t kept = std::max<int64_t>(1, options_.context - request.max_new_tokens);
  return {request.ids.end() - std::min(kept, length), request.ids.end()};
}

Scheduler::Id Scheduler::add(Request request, Listener listener) {
  std::vector<TokenId> prompt = fit(request);
  auto stream = std::make_unique<Stream>(++last_id_, std::move(request), std::move(prompt),
                                         std::move(listener), cache_, config_, options_, tokenizer_,
                                         scratch_);
  counts_.prompt_tokens += stream->prompt_length;
  waiting_.push_back(std::move(stream));
  return last_id_;
}

void Scheduler::cancel(Id id) {
  const auto is_it = [&](const StreamPtr& stream) { return stream->id == id; };
  const auto take = [&](auto& list) {
    const auto found = std::find_if(list.begin(), list.end(), is_it);
    if (found == list.end()) return false;
    StreamPtr stream = std::move(*found);
    list.erase(found);
    ++counts_.cancellations;
    end(*stream, FinishReason::Interrupted);
    finish(std::move(stream));
    return true;
  };
  if (!take(running_)) take(waiting_);
}

void Scheduler::cancel_all() {
  while (!running_.empty()) cancel(running_.back()->id);
  while (!waiting_.empty()) cancel(waiting_.back()->id);
}

// Frees pages that only the prefix cache holds until `pages` are free.
bool Scheduler::make_room(int64_t pages) {
  while (cache_.free_pages() < pages) {
    if (!prefixes_.evict()) return false;
  }
  return true;
}

// Takes over what is cached of the prompt and reserves pages for the rest of it.
bool Scheduler::try_admit(Stream& stream) {
  // At least the last id is fed, for its logits; logits of the prompt need all of it.
  const bool reuse = stream.request.reuse_prefix && stream.request.prompt_logprobs < 0 &&
                     stream.request.pooling == Pooling::None;
  int64_t cached = 0;
  if (reuse) {
    cached = prefixes_.advance(stream.sequence, stream.place, stream.history, stream.length() - 1);
  }
  // In an 8-bit cache a sequence cannot be computed again with the same bytes, so it must never
  // have to give its pages back.
  const int64_t most =
      options_.kv_type == DType::U8
          ? std::min(options_.context, stream.prompt_length + stream.request.max_new_tokens)
          : std::min(options_.context, stream.length() + 1);
  const int64_t needed = pages_for(most) - stream.sequence.page_count();
  // A page for each of those who run, so that they can go on for a while.
  if (!make_room(needed + (running_.empty() ? 0 : size_of(running_)))) {
    stream.sequence.release();
    stream.place.node = nullptr;
    return false;
  }
  if (reuse && stream.sequence.length() < stream.length() - 1) {
    cached +=
        prefixes_.copy_partial(stream.sequence, stream.place, stream.history, stream.length() - 1);
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

// Guesses how the text goes on: as it did the last time its newest ids stood in it.
void Scheduler::guess(Stream& stream) const {
  stream.guessed.clear();
  stream.guess_failed = false;
  constexpr int64_t kMatch = 3;
  const int64_t length = stream.length();
  const int64_t left = std::min(options_.context - length,
                                stream.request.max_new_tokens - size_of(stream.completion.ids)) -
                       1;
  const int64_t most = std::min(options_.speculate, left);
  if (most <= 0 || length <= kMatch || stream.request.constraint != nullptr) return;
  const auto tail = stream.history.end() - kMatch;
  for (auto at = tail - 1; at >= stream.history.begin(); --at) {
    if (!std::equal(at, at + kMatch, tail)) continue;
    const auto next = at + kMatch;
    const auto count = std::min<int64_t>(most, stream.history.end() - next);
    stream.guessed.assign(next, next + count);
    return;
  }
}

void Scheduler::add_item(Stream& stream, int64_t count) {
  const int64_t first = stream.sequence.length();
  const auto ids = std::span<const TokenId>(stream.history)
                       .subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  const bool whole = first + count == stream.length();
  BatchItem item = {&stream.sequence, ids, whole && !stream.prompt_only() ? 1 : 0};
  if (stream.request.prompt_logprobs >= 0 || stream.request.pooling == Pooling::Mean) {
    item.outputs = count;
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
  if (!stream.request.reuse_prefix || stream.sequence.length() % kPageTokens != 0) return false;
  const int64_t page_end = (stream.sequence.length() / kPageTokens + 1) * kPageTokens;
  if (page_end >= stream.length()) return false;
  return std::any_of(owners_.begin(), owners_.end(), [&](const Stream* other) {
    return other->request.reuse_prefix && other->place.key == stream.place.key &&
           other->length() >= page_end && other->sequence.length() < page_end &&
           std::equal(stream.history.begin(), stream.history.begin() + page_end,
                      other->history.begin());
  });
}

// The oldest prompt gets half of the room, so that it comes to its end; those with the fewest
// tokens left share the rest, so that short ones need not wait for long ones.
void Scheduler::plan_prompts(int64_t room) {
  if (filling_.empty()) return;
  const auto left = [](const Stream* stream) {
    return stream->length() - stream->sequence.length();
  };
  Stream* oldest = filling_.front();
  if (options_.kv_type == DType::U8) {
    // One scale a call: a prompt goes in whole, and alone if it is longer than a chunk.
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
  for (size_t i = 0; i < running_.size(); ++i) {
    Stream& stream = *running_[i];
    if (!stream.decoding()) continue;
    guess(stream);
    if (!grow(i, stream.length() + size_of(stream.guessed))) break;
    // Guesses stand behind the history while they are fed; its memory is reserved for them.
    stream.history.insert(stream.history.end(), stream.guessed.begin(), stream.guessed.end());
    const int64_t count = 1 + size_of(stream.guessed);
    batch_.push_back({&stream.sequence,
                      std::span<const TokenId>(stream.history).last(static_cast<size_t>(count)),
                      count});
    owners_.push_back(&stream);
    counts_.guessed_tokens += size_of(stream.guessed);
  }
  const bool beside_streams = !batch_.empty();
  for (const StreamPtr& stream : running_) {
    if (stream->decoding() || !stream->guessed.empty()) continue;
    // What a neighbour has computed meanwhile is taken over.
    if (stream->request.reuse_prefix && stream->request.prompt_logprobs < 0 &&
        stream->request.pooling == Pooling::None && stream->sequence.length() % kPageTokens == 0) {
      const int64_t taken =
          prefixes_.advance(stream->sequence, stream->place, stream->history, stream->length() - 1);
      stream->kept_length = std::max(stream->kept_length, stream->sequence.length());
      if (stream->completion.ids.empty()) {
        stream->completion.cached_tokens += taken;
        counts_.cached_tokens += taken;
      }
    }
    filling_.push_back(stream.get());
  }
  plan_prompts(prompt_room(beside_streams));

  int64_t tokens = 0;
  for (const BatchItem& item : batch_) tokens += size_of(item.ids);
  if (runner_ == nullptr || runner_->max_tokens() < tokens) {
    const int64_t steady = options_.chunk + max_sequences_ * (1 + options_.speculate);
    runner_.reset();
    runner_ = std::make_unique<Runner>(backend_, config_, weights_, std::max(tokens, steady),
                                       std::min<int64_t>(max_sequences_, 64));
  }
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

bool Scheduler::step() {
  expire();
  admit();
  if (running_.empty()) {
    assert(waiting_.empty());  // a context always fits into an empty cache
    return false;
  }
  const auto begin = Clock::now();
  plan();
  if (batch_.empty()) return true;  // the only one gave way to itself: it starts again
  int64_t prompt_tokens = 0;
  rows_.clear();
  for (size_t i = 0; i < batch_.size(); ++i) {
    const BatchItem& item = batch_[i];
    const int64_t end = owners_[i]->sequence.length() + size_of(item.ids);
    for (int64_t p = end - item.outputs; p < end; ++p) rows_.push_back({owners_[i], p});
    if (owners_[i]->completion.ids.empty()) prompt_tokens += size_of(item.ids);
  }
  const ConstRows hidden = runner_->forward(batch_, cache_);
  const int64_t most = runner_->max_logits();
  for (int64_t first = 0, last; first < hidden.rows; first = last) {
    Stream& owner = *rows_[static_cast<size_t>(first)].stream;
    last = first;
    if (owner.request.pooling != Pooling::None) {
      while (last < hidden.rows && rows_[static_cast<size_t>(last)].stream == &owner) ++last;
      pool(owner, hidden.slice(first, last));
      continue;
    }
    while (last < hidden.rows && last - first < most &&
           rows_[static_cast<size_t>(last)].stream->request.pooling == Pooling::None) {
      ++last;
    }
    const MutRows logits = runner_->logits(hidden.slice(first, last));
    for (int64_t r = first; r < last; ++r) {
      consume(rows_[static_cast<size_t>(r)],
              {logits.row(r - first), static_cast<size_t>(logits.cols)});
    }
  }
  ++counts_.steps;
  const double seconds = seconds_since(begin);
  counts_.step_seconds += seconds;
  learn_times(seconds, prompt_tokens);
  for (size_t i = 0; i < running_.size();) {
    Stream& stream = *running_[i];
    if (!stream.guessed.empty()) {
      // Of the guesses those stay that sampling came to as well.
      const int64_t good = stream.prompt_length + size_of(stream.completion.ids);
      stream.history.resize(static_cast<size_t>(good));
      stream.sequence.truncate(std::min(stream.sequence.length(), good - 1));
      stream.guessed.clear();
    }
    const bool filled = stream.sequence.length() == stream.length();
    if (!stream.done && filled && stream.prompt_only()) end(stream, FinishReason::Length);
    if (!stream.done) {
      keep_pages(stream);
      ++i;
      continue;
    }
    StreamPtr over = std::move(running_[i]);
    running_.erase(running_.begin() + static_cast<int64_t>(i));
    finish(std::move(over));
  }
  return true;
}

void Scheduler::keep_pages(Stream& stream) {
  if (!stream.request.reuse_prefix) return;
  const int64_t full = stream.sequence.length() / kPageTokens * kPageTokens;
  if (full <= stream.kept_length) return;
  prefixes_.keep(stream.sequence, stream.place, stream.history, full, false);
  stream.kept_length = full;
}

void Scheduler::pool(Stream& stream, ConstRows hidden) {
  std::vector<float>& sum = stream.completion.embedding;
  sum.resize(static_cast<size_t>(hidden.cols));
  for (int64_t r = 0; r < hidden.rows; ++r) {
    for (int64_t i = 0; i < hidden.cols; ++i) sum[static_cast<size_t>(i)] += hidden.row(r)[i];
  }
  if (stream.request.pooling == Pooling::Mean && stream.sequence.length() == stream.length()) {
    for (float& x : sum) x /= static_cast<float>(stream.length());
  }
}

// Row by row, because what a row of a guess is good for depends on the row before.
void Scheduler::consume(const Row& row, std::span<float> logits) {
  Stream& stream = *row.stream;
  if (stream.done) return;
  const int64_t known = stream.prompt_length + size_of(stream.completion.ids);
  if (row.position + 1 < stream.prompt_length) {
    // After a pre-emption the prompt comes by a second time.
    if (row.position < size_of(stream.completion.prompt_logprobs)) return;
    const TokenId next = stream.history[static_cast<size_t>(row.position + 1)];
    stream.completion.prompt_logprobs.push_back(
        logprobs_of(logits, next, stream.request.prompt_logprobs));
    return;
  }
  if (stream.prompt_only() || stream.guess_failed || row.position + 1 != known) return;
  NewToken token;
  try {
    token = take_token(stream, logits);
  } catch (const Error&) {
    stream.completion.failure = std::current_exception();
    end(stream, FinishReason::Failed);
    return;
  }
  if (stream.listener.token) stream.listener.token(token);
}

NewToken Scheduler::take_token(Stream& stream, std::span<float> logits) {
  const Request& request = stream.request;
  Completion& out = stream.completion;
  // Behind what is known stand the guesses that follow.
  const auto known = static_cast<size_t>(stream.prompt_length) + out.ids.size();
  const auto history = std::span<const TokenId>(stream.history).first(known);
  std::vector<float> raw;
  if (request.top_logprobs >= 0) raw.assign(logits.begin(), logits.end());
  if (request.constraint) request.constraint->mask(logits);
  NewToken token;
  token.id =
      request.stop.forces_end(history) && !request.stop.ids.empty()
          ? request.stop.ids[0]
          : stream.sampler.sample(logits, history, static_cast<size_t>(stream.prompt_length));
  if (request.constraint) request.constraint->accept(token.id);
  if (out.ids.empty()) {
    stream.first_token = Clock::now();
    out.prefill_seconds = seconds_since(*stream.started);
  }
  if (known == stream.history.size()) {
    stream.history.push_back(token.id);
  } else if (stream.history[known] == token.id) {
    ++counts_.accepted_tokens;
  } else {
    stream.history.resize(known);
    stream.history.push_back(token.id);
    stream.guess_failed = true;  // the rows that follow belong to another text
  }
  out.ids.push_back(token.id);
  ++counts_.new_tokens;
  if (request.top_logprobs >= 0) {
    token.logprobs = logprobs_of(raw, token.id, request.top_logprobs);
    out.logprobs.push_back(*token.logprobs);
  }
  const bool ended = request.stop.ends(token.id);
  // The output layer may have more rows than the tokenizer has tokens; those stand for no text.
  const bool has_text = stream.decoder && !ended && token.id < tokenizer_->size();
  if (has_text) token.text = stream.stop.put(stream.decoder->put(token.id));
  const bool full = size_of(out.ids) >= request.max_new_tokens ||
                    static_cast<int64_t>(known) + 1 >= options_.context;
  const bool over = ended || stream.stop.stopped() || full;
  if (over && stream.decoder && !stream.stop.stopped()) {
    token.text += stream.stop.put(stream.decoder->flush());
    if (!stream.stop.stopped()) token.text += stream.stop.flush();
  }
  out.text += token.text;
  if (over) {
    end(stream, ended || stream.stop.stopped() ? FinishReason::Stop : FinishReason::Length);
  }
  return token;
}

void Scheduler::end(Stream& stream, FinishReason reason) {
  stream.done = true;
  stream.completion.reason = reason;
  if (stream.first_token) stream.completion.decode_seconds = seconds_since(*stream.first_token);
}

// The request is over: its pages go to the prefix cache or back to the pool, its listener hears of
// it.
void Scheduler::finish(StreamPtr stream) {
  if (stream->request.reuse_prefix && stream->completion.reason != FinishReason::Failed) {
    prefixes_.keep(stream->sequence, stream->place, stream->history, stream->sequence.length(),
                   true);
  }
  stream->sequence.release();
  blocked_ = false;
  if (stream->listener.done) stream->listener.done(std::move(stream->completion));
}

Scheduler::Load Scheduler::load() const {
  Load load = counts_;
  load.running = size_of(running_);
  load.waiting = size_of(waiting_);
  load.pages = cache_.pages();
  load.free_pages = cache_.free_pages();
  load.kept_pages = prefixes_.kept_pages();
  return load;
}

}  // namespace quern
