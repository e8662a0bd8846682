// Text and log-probabilities from a model, wherever it runs: in this process, or behind the URL of
// an OpenAI-compatible server. Evaluation, agents and the terminal's chat ask through this alone.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "generate/model.h"
#include "grammar/grammar.h"
#include "net/http_client.h"
#include "text/messages.h"

namespace quern {

// How tokens are chosen. What is absent is as the model (or the server) says.
struct SamplingChoice {
  std::optional<bool> greedy;
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty;
  std::optional<double> frequency_penalty, presence_penalty;
  std::optional<int64_t> top_k, no_repeat_ngram;
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::optional<uint64_t> seed;

  // On top of `defaults`. Naming a way of sampling wants to sample. Throws Misused out of range.
  SamplingOptions on(SamplingOptions defaults) const;
};

// A text to go on with, or a conversation to answer. One of `messages`, `ids` and `prompt` counts,
// in this order.
struct CompleteRequest {
  std::string prompt;             // control tokens' names in it are control tokens
  std::vector<TokenId> ids;       // what `prompt` would be encoded to
  std::vector<Message> messages;  // through the model's chat template
  SamplingChoice sampling;
  std::vector<std::string> stop;  // texts that end the answer and are not in it
  bool ignore_eos = false;
  int64_t max_new_tokens = 0;  // 0: as the model says, or 512
  // Tells samples of one prompt apart; a server is sent the sum of the two as the seed, if one is given.
  uint64_t stream = 0;
  std::optional<bool> thinking;  // of a reasoning model; absent: as its template says

  // Set for conversations only:
  OrderedJson tools;           // that the answer may call, in OpenAI's form; null: none
  bool continue_last = false;  // the last message, the assistant's, goes on
  // What the answer is kept to, where the answerer keeps_grammars().
  std::shared_ptr<const Grammar> grammar;
};

struct Answer {
  std::string text;
  std::string reasoning;        // where the server tells it apart from the text
  std::vector<ToolCall> calls;  // with CompleteRequest::tools; not in the text
  std::string call_problem;     // why what looks like a call is none: ParsedReply::error
  FinishReason finish = FinishReason::Failed;
  std::string failure;  // one line, with FinishReason::Failed
  Kind failure_kind = Kind::Failed;
  int64_t prompt_tokens = 0, cached_tokens = 0, new_tokens = 0;
  double first_seconds = 0;  // from the request's start to its first token
  double seconds = 0;        // to its last
};

// How likely the continuation is after the context. Texts are joined and encoded as one, as
// lm-evaluation-harness does: spaces at the context's end belong to the continuation, and the
// continuation's tokens are those behind as many as the context alone has. Or ids, as they are.
struct LikelihoodRequest {
  std::string context, continuation;
  std::vector<TokenId> context_ids, continuation_ids;  // where given, the texts don't count
};

struct Likelihood {
  double sum = 0;               // of logprobs, natural logarithm
  std::vector<float> logprobs;  // of the continuation's tokens
  bool greedy = false;          // each of them is its place's most likely token
  int64_t context_tokens = 0, cached_tokens = 0;
  bool known = false;
  std::string failure;  // one line, where not known
  Kind failure_kind = Kind::Failed;
};

struct CompleteEvents {
  std::function<void(size_t request, std::string_view text)> text;       // as it comes
  std::function<void(size_t request, std::string_view text)> reasoning;  // the same
  std::function<void(size_t request, const Answer& answer)> done;
};
using LikelihoodDone = std::function<void(size_t request, const Likelihood& likelihood)>;

// All that are asked for together run together; results come in the order of the requests, events
// as things happen, on the calling thread. One request's failure (a prompt longer than the context,
// a server's refusal) is its own result's; the others go on. What is cancelled ends as Interrupted
// with the text so far; likelihoods that did not come to their end are not known.
class Answerer {
 public:
  virtual ~Answerer() = default;

  virtual std::string name() const = 0;

  // Whether conversations can offer these tools: in this process, whether the model's template
  // writes them.
  virtual bool offers(const OrderedJson& tools) const = 0;
  virtual bool keeps_grammars() const = 0;

  virtual std::vector<Answer> complete(std::span<const CompleteRequest> requests,
                                       const CompleteEvents& events = {},
                                       const std::atomic<bool>* cancel = nullptr) = 0;
  // Over a server: by completions with `echo` and `logprobs`. One that gives no log-probabilities of
  // the prompt fails each request with a word that says so (Unsupported).
  virtual std::vector<Likelihood> log_likelihood(std::span<const LikelihoodRequest> requests,
                                                 const LikelihoodDone& done = {},
                                                 const std::atomic<bool>* cancel = nullptr) = 0;
};

struct ModelAnswererOptions {
  int64_t batch = 16;  // requests that run at once at most
  // The KV cache holds the whole context from the start: for a conversation, which grows.
  bool whole_context = false;
};
// `model` must outlive it. What requests have in common at their beginning is computed once, where
// the KV cache's type allows that; results don't depend on it, nor on batch or order.
std::unique_ptr<Answerer> make_model_answerer(Model& model,
                                              const ModelAnswererOptions& options = {});

struct ServerAnswererOptions {
  net::ClientOptions client;  // its url with or without a final /v1
  std::string model;          // empty: the server's first
  int connections = 8;        // requests at once
  int tries = 5;              // of a request that is refused for load, or whose connection breaks
  bool stream = false;        // answers come word by word; else whole
};
// Asks the server for its models at once. Throws Failed with the server's words where it refuses or
// is not there, Misused for an address that is none.
std::unique_ptr<Answerer> make_server_answerer(const ServerAnswererOptions& options);

}  // namespace quern
