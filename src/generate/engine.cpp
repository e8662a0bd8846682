#include "generate/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "model/rotary.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

std::string_view name(FinishReason reason) noexcept {
  constexpr std::string_view kNames[] = {"stop", "length", "interrupted"};
  return kNames[static_cast<size_t>(reason)];
}

// A request while it runs.
struct Engine::Stream {
  Stream(const Request& wanted, std::vector<TokenId> prompt, Sequence& place, int64_t vocab,
         const Tokenizer* tokenizer)
      : request(&wanted),
        history(std::move(prompt)),
        prompt_length(history.size()),
        sequence(&place),
        sampler(wanted.sampling, vocab, wanted.stream),
        stop(wanted.stop.strings) {
    history.reserve(prompt_length + static_cast<size_t>(wanted.max_new_tokens));
    completion.ids.reserve(static_cast<size_t>(wanted.max_new_tokens));
    completion.prompt_tokens = static_cast<int64_t>(prompt_length);
    if (tokenizer != nullptr) decoder.emplace(*tokenizer, true, wanted.text_start);
    done = wanted.max_new_tokens == 0;
  }

  const Request* request;
  std::vector<TokenId> history;  // prompt and new tokens
  size_t prompt_length;
  Sequence* sequence;
  Sampler sampler;
  StopStrings stop;
  std::optional<StreamDecoder> decoder;
  Completion completion;
  Clock::time_point started = Clock::now();
  Clock::time_point first_token;
  bool done = false;
};

Engine::Engine(Backend& backend, const Config& config, const Weights& weights,
               const Tokenizer* tokenizer, EngineOptions options)
    : backend_(backend),
      config_(config),
      weights_(weights),
      tokenizer_(tokenizer),
      options_(options) {
  if (options_.context == 0) options_.context = config.max_context;
}

Engine::~Engine() = default;

// The prompt as it will be fed, checked against vocabulary and context.
std::vector<TokenId> Engine::fit(const Request& request) const {
  if (request.ids.empty()) throw_bad_input("the prompt is empty");
  request.sampling.check();
  check_ids(request.ids, config_, "the prompt");
  const auto length = static_cast<int64_t>(request.ids.size());
  if (length < options_.context) return request.ids;
  if (!request.truncate) {
    throw_bad_input(
        fmt::format("the prompt has {} tokens, the context {}", length, options_.context),
        "shorten it, raise --context, or pass --truncate to cut its beginning");
  }
  const int64_t room = std::max<int64_t>(1, options_.context - request.max_new_tokens);
  return {request.ids.end() - std::min(room, length), request.ids.end()};
}

void Engine::ensure_capacity(int64_t tokens, int64_t sequences, int64_t longest_prompt) {
  if (cache_ == nullptr || capacity_ < tokens || max_sequences_ < sequences) {
    kept_.reset();
    cache_ = std::make_unique<KvCache>(backend_, config_, options_.kv_type, tokens, sequences);
    capacity_ = tokens;
    max_sequences_ = sequences;
    runner_.reset();
  }
  // The 8-bit cache takes one scale for a whole call, so its prompts go in one piece.
  const int64_t chunk = options_.kv_type == DType::U8
                            ? longest_prompt
                            : std::min(options_.chunk, std::max<int64_t>(longest_prompt, 16));
  const int64_t needed = std::max(chunk, sequences) + sequences;
  if (runner_ == nullptr || runner_->max_tokens() < needed) {
    runner_ = std::make_unique<Runner>(backend_, config_, weights_, needed, max_sequences_);
  }
}

std::vector<Completion> Engine::run(const std::vector<Request>& requests, const OnToken& on_token,
                                    const std::atomic<bool>* cancel) {
  std::vector<std::vector<TokenId>> prompts;
  int64_t tokens = 0, longest = 0;
  for (const Request& request : requests) {
    prompts.push_back(fit(request));
    const auto length = static_cast<int64_t>(prompts.back().size());
    tokens += std::min(options_.context, length + request.max_new_tokens);
    longest = std::max(longest, length);
  }
  ensure_capacity(tokens, static_cast<int64_t>(requests.size()), longest);
  kept_.reset();
  std::vector<Sequence> sequences;
  sequences.reserve(requests.size());
  std::vector<Stream> streams;
  streams.reserve(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto length = static_cast<int64_t>(prompts[i].size());
    sequences.emplace_back(*cache_, config_, options_.rules, length);
    sequences.back().reserve(std::min(options_.context, length + requests[i].max_new_tokens));
    streams.emplace_back(requests[i], std::move(prompts[i]), sequences.back(), config_.output_vocab,
                         tokenizer_);
  }
  loop(streams, on_token, cancel);
  std::vector<Completion> completions;
  for (Stream& stream : streams) completions.push_back(std::move(stream.completion));
  return completions;
}

Completion Engine::run_continued(const Request& request, const OnToken& on_token,
                                 const std::atomic<bool>* cancel) {
  std::vector<TokenId> prompt = fit(request);
  const auto length = static_cast<int64_t>(prompt.size());
  ensure_capacity(options_.context, 1, length);
  const double alpha = options_.rules.dynamic_ntk ? ntk_alpha(length, config_.trained_context) : 1;
  if (kept_ == nullptr || kept_->alpha() != alpha) {
    kept_.reset();  // gives its pages back before the next one takes them
    kept_ = std::make_unique<Sequence>(*cache_, config_, options_.rules, length);
    kept_ids_.clear();
  }
  const auto known = std::span(kept_ids_).first(static_cast<size_t>(
      std::min<int64_t>(kept_->length(), static_cast<int64_t>(kept_ids_.size()))));
  const auto common = std::mismatch(known.begin(), known.end(), prompt.begin(), prompt.end());
  // At least the last token is fed, for its logits.
  kept_->truncate(std::min<int64_t>(common.first - known.begin(), length - 1));
  kept_->reserve(std::min(options_.context, length + request.max_new_tokens));
  std::vector<Stream> streams;
  streams.emplace_back(request, std::move(prompt), *kept_, config_.output_vocab, tokenizer_);
  loop(streams, on_token, cancel);
  kept_ids_ = std::move(streams[0].history);
  return std::move(streams[0].completion);
}

void Engine::loop(std::vector<Stream>& streams, const OnToken& on_token,
                  const std::atomic<bool>* cancel) {
  std::vector<BatchItem> batch;
  std::vector<size_t> owners;
  batch.reserve(streams.size());
  owners.reserve(streams.size());
  while (true) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      for (Stream& stream : streams) {
        if (stream.done) continue;
        Completion& out = stream.completion;
        out.reason = FinishReason::Interrupted;
        if (!out.ids.empty()) out.decode_seconds = seconds_since(stream.first_token);
      }
      return;
    }
    batch.clear();
    owners.clear();
    int64_t room = runner_->max_tokens();
    for (size_t i = 0; i < streams.size() && room > 0; ++i) {
      Stream& stream = streams[i];
      if (stream.done) continue;
      const auto fed = static_cast<size_t>(stream.sequence->length());
      auto waiting = std::span<const TokenId>(stream.history).subspan(fed);
      // The others' next tokens find room beside a long prompt.
      const auto reserve = static_cast<int64_t>(streams.size() - i - 1);
      const int64_t most = std::max<int64_t>(1, room - reserve);
      // The 8-bit cache has one scale a call: its prompts wait until they fit whole.
      const bool whole = options_.kv_type == DType::U8;
      if (whole && static_cast<int64_t>(waiting.size()) > most && !batch.empty()) continue;
      waiting = waiting.first(std::min(waiting.size(), static_cast<size_t>(most)));
      batch.push_back({stream.sequence, waiting});
      owners.push_back(i);
      room -= static_cast<int64_t>(waiting.size());
    }
    if (batch.empty()) return;
    const ConstRows hidden = runner_->forward(batch, *cache_);
    const MutRows logits = runner_->logits(hidden);
    for (size_t b = 0; b < batch.size(); ++b) {
      Stream& stream = streams[owners[b]];
      const bool all_fed = static_cast<size_t>(stream.sequence->length()) == stream.history.size();
      if (!all_fed) continue;
      take_token(stream, owners[b],
                 {logits.row(static_cast<int64_t>(b)), static_cast<size_t>(logits.cols)}, on_token);
    }
  }
}

void Engine::take_token(Stream& stream, size_t index, std::span<float> logits,
                        const OnToken& on_token) {
  const Request& request = *stream.request;
  Completion& out = stream.completion;
  std::vector<float> raw;
  if (request.top_logprobs >= 0) raw.assign(logits.begin(), logits.end());
  NewToken token;
  token.id = request.stop.forces_end(stream.history) && !request.stop.ids.empty()
                 ? request.stop.ids[0]
                 : stream.sampler.sample(logits, stream.history, stream.prompt_length);
  if (out.ids.empty()) {
    stream.first_token = Clock::now();
    out.prefill_seconds = seconds_since(stream.started);
  }
  stream.history.push_back(token.id);
  out.ids.push_back(token.id);
  if (request.top_logprobs >= 0) {
    token.logprobs = logprobs_of(raw, token.id, request.top_logprobs);
    out.logprobs.push_back(*token.logprobs);
  }
  const bool ended = request.stop.ends(token.id);
  // The output layer may have more rows than the tokenizer has tokens; those stand for no text.
  const bool has_text = stream.decoder && !ended && token.id < tokenizer_->size();
  if (has_text) token.text = stream.stop.put(stream.decoder->put(token.id));
  const auto generated = static_cast<int64_t>(out.ids.size());
  const bool full = generated >= request.max_new_tokens ||
                    static_cast<int64_t>(stream.history.size()) >= options_.context;
  if (ended || stream.stop.stopped() || full) {
    stream.done = true;
    out.reason = ended || stream.stop.stopped() ? FinishReason::Stop : FinishReason::Length;
    if (stream.decoder && !stream.stop.stopped()) {
      token.text += stream.stop.put(stream.decoder->flush());
      if (!stream.stop.stopped()) token.text += stream.stop.flush();
    }
    out.decode_seconds = seconds_since(stream.first_token);
  }
  out.text += token.text;
  if (on_token) on_token(index, token);
}

}  // namespace quern
