#include "generate/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "core/error.h"
#include "generate/scheduler_stream.h"

namespace quern {

std::string_view name(FinishReason reason) noexcept {
  constexpr std::string_view kNames[] = {"stop", "length", "interrupted", "failed"};
  return kNames[static_cast<size_t>(reason)];
}

Scheduler::Scheduler(const Network& network, const Tokenizer* tokenizer,
                     const EngineOptions& options, int64_t capacity, int64_t sequences)
    : network_(network),
      config_(network.config),
      tokenizer_(tokenizer),
      options_(options),
      policy_(kv_policy(options.kv_type)),
      max_sequences_(sequences),
      cache_(network.backend, network.config, options.kv_type, capacity, sequences),
      prefixes_(cache_) {
  if (options_.context == 0) options_.context = config_.max_context;
  options_.context = std::min(options_.context, cache_.pages() * kPageTokens);
  if (!policy_.guessed) options_.speculate = 0;
  if (options_.speculate > 0 && options_.draft.weights != nullptr) {
    drafter_ = std::make_unique<Drafter>(
        Network{network.backend, *options_.draft.config, *options_.draft.weights},
        options_.draft.rules, options_.context, sequences, capacity);
  }
}

Scheduler::~Scheduler() = default;

// The prompt as it will be fed, checked against vocabulary and context.
std::vector<TokenId> Scheduler::fit(Request& request) const {
  if (request.ids.empty()) throw_bad_input("the prompt is empty");
  request.sampling.check();
  check_ids(request.ids, config_, "the prompt");
  const int64_t length = size_of(request.ids);
  if (request.prompt_logprobs >= 0 &&
      (request.prompt_logprobs_from < 1 || request.prompt_logprobs_from > length)) {
    throw_bad_input(fmt::format("prompt_logprobs_from is {}, expected 1 to the prompt's {} tokens",
                                request.prompt_logprobs_from, length));
  }
  const int64_t room = request.max_new_tokens == 0 ? options_.context : options_.context - 1;
  if (length <= room) return std::move(request.ids);
  if (!request.truncate) {
    throw_bad_input(
        fmt::format("the prompt has {} tokens, the context {}", length, options_.context),
        "shorten it, raise --context, or pass --truncate to cut its beginning");
  }
  const int64_t kept = std::max<int64_t>(1, options_.context - request.max_new_tokens);
  request.prompt_logprobs_from =
      std::max<int64_t>(1, request.prompt_logprobs_from - (length - std::min(kept, length)));
  return {request.ids.end() - std::min(kept, length), request.ids.end()};
}

Scheduler::Id Scheduler::add(Request request, Listener listener) {
  if (request.adapter != nullptr && request.adapter->max_rank() > options_.adapter_rank) {
    throw_bad_input(fmt::format("the adapter has rank {}, at most {} is taken",
                                request.adapter->max_rank(), options_.adapter_rank));
  }
  std::vector<TokenId> prompt = fit(request);
  if (!policy_.shared) request.reuse_prefix = false;
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
    const bool filled = stream.sequence.length() >= stream.needed_length();
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
    // Behind the last one that is known: after a pre-emption the prompt comes by a second time.
    const int64_t due =
        stream.request.prompt_logprobs_from + size_of(stream.completion.prompt_logprobs);
    if (row.position + 1 != due) return;
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
  if (drafter_ != nullptr) drafter_->forget(stream->id);
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
