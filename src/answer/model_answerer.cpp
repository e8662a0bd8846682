// Answers of a model in this process: a Scheduler that is fed as it empties.
#include <algorithm>

#include "agent/call_grammar.h"
#include "answer/answerer.h"
#include "core/error.h"
#include "model/kv_cache.h"
#include "text/chatml.h"
#include "text/reasoning.h"

namespace quern {
namespace {

// Writes an exception into the result of its request.
template <class Result>
void fail(Result& result, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    result.failure = error.line();
    result.failure_kind = error.kind();
  }
}

class ModelAnswerer : public Answerer {
 public:
  ModelAnswerer(Model& model, const ModelAnswererOptions& options)
      : model_(model), options_(options) {}

  std::string name() const override { return model_.folder().filename().string(); }

  bool offers(const OrderedJson& tools) const override {
    ChatPrompt prompt;
    prompt.messages.emplace_back(ChatRole::User, "?");
    try {
      const std::string without = model_.chat().render(prompt).text;
      prompt.tools = tools;
      // Templates that know no tools leave them out without a word.
      return model_.chat().render(prompt).text != without;
    } catch (const Error&) {
      return false;
    }
  }
  bool keeps_grammars() const override { return model_.has_tokenizer(); }

  std::vector<Answer> complete(std::span<const CompleteRequest> requests,
                               const CompleteEvents& events,
                               const std::atomic<bool>* cancel) override {
    std::vector<Answer> answers(requests.size());
    const auto marks = call_marks();
    // Split reasoning from the answer; set for conversations only.
    std::vector<std::optional<ReasoningSplitter>> splitters(requests.size());
    std::vector<std::string> replies(requests.size());  // with tools: marks of calls are in it
    const auto give = [&](size_t i, const ReasoningSplitter::Pieces& pieces) {
      answers[i].reasoning += pieces.reasoning;
      answers[i].text += pieces.content;
      if (events.reasoning && !pieces.reasoning.empty()) events.reasoning(i, pieces.reasoning);
      if (events.text && !pieces.content.empty()) events.text(i, pieces.content);
    };
    run(
        requests.size(), [&](size_t i) { return request_of(requests[i], splitters[i]); },
        [&](size_t i, const NewToken& token) {
          if (!requests[i].tools.is_null()) {
            replies[i] += token.text;
            const auto mark = std::ranges::find(marks, token.id, &Mark::first);
            if (mark != marks.end()) replies[i] += mark->second;
          } else if (splitters[i]) {
            give(i, splitters[i]->put(token.text));
          } else if (events.text && !token.text.empty()) {
            events.text(i, token.text);
          }
        },
        [&](size_t i, Completion completion) {
          Answer& answer = answers[i];
          answer.finish = completion.reason;
          if (completion.failure) fail(answer, completion.failure);
          if (!requests[i].tools.is_null() && splitters[i]) {
            // Calls are read once they are whole; what is text is told then.
            ReasoningSplitter::Pieces pieces = splitters[i]->put(replies[i]);
            const ReasoningSplitter::Pieces rest = splitters[i]->flush();
            pieces.reasoning += rest.reasoning;
            pieces.content += rest.content;
            read_calls(pieces.content, answer);
            give(i, pieces);
          } else if (splitters[i]) {
            give(i, splitters[i]->flush());
          } else {
            answer.text = std::move(completion.text);
          }
          answer.prompt_tokens = completion.prompt_tokens;
          answer.cached_tokens = completion.cached_tokens;
          answer.new_tokens = static_cast<int64_t>(completion.ids.size());
          answer.first_seconds = completion.queue_seconds + completion.prefill_seconds;
          answer.seconds = answer.first_seconds + completion.decode_seconds;
          if (events.done) events.done(i, answer);
        },
        cancel);
    return answers;
  }

  std::vector<Likelihood> log_likelihood(std::span<const LikelihoodRequest> requests,
                                         const LikelihoodDone& done,
                                         const std::atomic<bool>* cancel) override {
    std::vector<Likelihood> out(requests.size());
    std::vector<size_t> wanted(requests.size());  // tokens of each continuation
    run(
        requests.size(),
        [&](size_t i) {
          Request request = likelihood_request(requests[i]);
          out[i].context_tokens = request.prompt_logprobs_from;
          wanted[i] = request.ids.size() - static_cast<size_t>(request.prompt_logprobs_from);
          return request;
        },
        {},
        [&](size_t i, Completion completion) {
          Likelihood& result = out[i];
          result.cached_tokens = completion.cached_tokens;
          if (completion.failure) {
            fail(result, completion.failure);
          } else if (completion.prompt_logprobs.size() != wanted[i]) {
            result.failure = "interrupted";
            result.failure_kind = Kind::Interrupted;
          } else {
            result.known = result.greedy = true;
            for (const Logprobs& token : completion.prompt_logprobs) {
              result.logprobs.push_back(token.chosen);
              result.sum += token.chosen;
              result.greedy &= token.chosen >= token.top[0].logprob;
            }
          }
          if (done) done(i, result);
        },
        cancel);
    return out;
  }

 private:
  using Mark = std::pair<TokenId, std::string>;
  using KeptAutomaton = std::pair<std::shared_ptr<const Grammar>, std::shared_ptr<Automaton>>;

  // Control tokens that begin or end calls: they show in no text.
  std::vector<Mark> call_marks() const {
    std::vector<Mark> out;
    if (!model_.has_tokenizer()) return out;
    const Tokenizer& tokenizer = model_.tokenizer();
    for (const char* name : {"<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]",
                             "[ARGS]", "<|python_tag|>"}) {
      const auto id = tokenizer.special(name);
      if (id && tokenizer.is_special(*id)) out.emplace_back(*id, name);
    }
    return out;
  }

  // Takes the calls out of a reply; what stands before them stays.
  void read_calls(std::string& text, Answer& answer) const {
    const ParsedReply reply = parse_reply(call_style(model_.tokenizer()), text);
    for (const ReplyCall& call : reply.calls) {
      answer.calls.push_back({{}, call.name, call.arguments});
    }
    if (reply.error != "empty") answer.call_problem = reply.error;
    text = reply.final.value_or(reply.thought);
  }

  // A constraint of its own for each request. Automata of the last grammars are kept with the masks
  // that they made; the tokens' tree is made once.
  std::shared_ptr<Constraint> constraint_of(const std::shared_ptr<const Grammar>& grammar,
                                            const StopRules& stop) {
    const Tokenizer& tokenizer = model_.tokenizer();
    if (trie_ == nullptr) {
      trie_ = std::make_shared<TokenTrie>(tokenizer, model_.config().output_vocab);
    }
    auto found = std::ranges::find(automata_, grammar, &KeptAutomaton::first);
    if (found == automata_.end()) {
      constexpr size_t kKept = 4;
      if (automata_.size() == kKept) automata_.erase(automata_.begin());
      automata_.emplace_back(grammar, std::make_shared<Automaton>(*grammar, trie_));
      found = automata_.end() - 1;
    }
    return std::make_shared<GrammarConstraint>(found->second, tokenizer, stop.ids);
  }

  Request request_of(const CompleteRequest& wanted, std::optional<ReasoningSplitter>& splitter) {
    Request request;
    if (!wanted.messages.empty()) {
      ChatPrompt prompt;
      prompt.messages = wanted.messages;
      prompt.thinking = wanted.thinking;
      prompt.tools = wanted.tools;
      prompt.continue_final_message = wanted.continue_last;
      prompt.add_generation_prompt = !wanted.continue_last;
      prompt.max_window = model_.generation().max_window_size.value_or(kDefaultWindow);
      RenderedChat rendered = model_.chat().render(prompt);
      splitter.emplace(opens_reasoning(rendered.text));
      request.ids = std::move(rendered.ids);
    } else {
      request.ids = wanted.ids.empty() ? model_.raw_prompt(wanted.prompt) : wanted.ids;
    }
    request.sampling = wanted.sampling.on(model_.default_sampling());
    request.stop = model_.default_stop();
    request.stop.strings = wanted.stop;
    request.stop.ignore_ids = wanted.ignore_eos;
    request.max_new_tokens = wanted.max_new_tokens > 0
                                 ? wanted.max_new_tokens
                                 : model_.generation().max_new_tokens.value_or(512);
    request.stream = wanted.stream;
    request.text_start = !wanted.messages.empty() && !wanted.continue_last;
    if (wanted.grammar != nullptr) {
      request.stop.sequences.clear();  // they would end it where the grammar does not
      request.constraint = constraint_of(wanted.grammar, request.stop);
    }
    return request;
  }

  Request likelihood_request(const LikelihoodRequest& wanted) const {
    Request request;
    size_t context;
    if (!wanted.continuation_ids.empty()) {
      request.ids = wanted.context_ids;
      context = request.ids.size();
      request.ids.insert(request.ids.end(), wanted.continuation_ids.begin(),
                         wanted.continuation_ids.end());
    } else {
      std::string_view text = wanted.context;
      text = text.substr(0, text.find_last_not_of(" \t\n\r\v\f") + 1);
      context = text.empty() ? 0 : model_.raw_prompt(text).size();
      request.ids = model_.raw_prompt(wanted.context + wanted.continuation);
    }
    // The very first token has no log-probability: put the token that begins a text before it.
    if (context == 0) {
      const Tokenizer& tokenizer = model_.tokenizer();
      const auto begin = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos();
      if (!begin) throw_bad_input("the context is empty");
      if (request.ids.empty() || request.ids[0] != *begin || tokenizer.bos() != begin) {
        request.ids.insert(request.ids.begin(), *begin);
      }
      context = 1;
    }
    if (context >= request.ids.size()) throw_bad_input("the continuation is empty");
    request.max_new_tokens = 0;
    request.prompt_logprobs = 1;
    request.prompt_logprobs_from = static_cast<int64_t>(context);
    return request;
  }

  int64_t positions_of(const Request& request) const {
    return std::min(model_.engine_options().context,
                    static_cast<int64_t>(request.ids.size()) + request.max_new_tokens);
  }

  // A scheduler whose cache has room for `batch` requests of `longest` positions, or for as many as
  // fit half of the free memory, and at least for one.
  Scheduler& scheduler_for(int64_t longest, int64_t batch) {
    const EngineOptions& engine = model_.engine_options();
    if (options_.whole_context) longest = engine.context;
    if (scheduler_ != nullptr && longest <= longest_ && batch <= batch_) return *scheduler_;
    longest_ = std::max(longest_, std::min(longest + longest / 4, engine.context));
    batch_ = std::max(batch, batch_);
    scheduler_.reset();  // gives its memory back before the next one takes more
    const auto per_token =
        static_cast<double>(KvCache::bytes_per_token(model_.config(), engine.kv_type));
    const double room = static_cast<double>(available_memory()) / 2 / per_token;
    const double wanted = static_cast<double>(longest_) * static_cast<double>(batch_ + 1);
    const auto capacity = std::max(longest_, static_cast<int64_t>(std::min(wanted, room)));
    scheduler_ = std::make_unique<Scheduler>(model_.network(), model_.tokenizer_or_null(), engine,
                                             capacity, batch_);
    return *scheduler_;
  }

  void run(size_t count, const std::function<Request(size_t)>& request_at,
           const std::function<void(size_t, const NewToken&)>& on_token,
           const std::function<void(size_t, Completion)>& on_done,
           const std::atomic<bool>* cancel) {
    const bool reuse = kv_policy(model_.engine_options().kv_type).shared;
    std::vector<Request> requests(count);
    int64_t longest = 1;
    std::vector<size_t> order;
    for (size_t i = 0; i < count; ++i) {
      try {
        requests[i] = request_at(i);
        requests[i].reuse_prefix = reuse;
        longest = std::max(longest, positions_of(requests[i]));
        order.push_back(i);
      } catch (const Error&) {
        Completion failed;
        failed.reason = FinishReason::Failed;
        failed.failure = std::current_exception();
        on_done(i, std::move(failed));
      }
    }
    if (order.empty()) return;
    const auto batch = std::min(options_.batch, static_cast<int64_t>(order.size()));
    Scheduler& scheduler = scheduler_for(longest, batch);
    // Whatever is thrown, no request stays behind that would call into this frame.
    struct Leftovers {
      Scheduler& scheduler;
      ~Leftovers() { scheduler.cancel_all(); }
    } leftovers{scheduler};
    size_t next = 0;
    int64_t open = 0;
    const auto add = [&](size_t i) {
      Scheduler::Listener listener;
      if (on_token) listener.token = [&, i](const NewToken& token) { on_token(i, token); };
      listener.done = [&, i](Completion completion) {
        --open;
        on_done(i, std::move(completion));
      };
      try {
        ++open;
        scheduler.add(std::move(requests[i]), std::move(listener));
      } catch (const Error&) {
        --open;
        Completion failed;
        failed.reason = FinishReason::Failed;
        failed.failure = std::current_exception();
        on_done(i, std::move(failed));
      }
    };
    while (cancel == nullptr || !cancel->load(std::memory_order_relaxed)) {
      while (next < order.size() && open < 2 * batch_) add(order[next++]);
      if (!scheduler.step() && next == order.size()) return;
    }
    scheduler.cancel_all();
    for (; next < order.size(); ++next) {
      Completion never;
      never.reason = FinishReason::Interrupted;
      on_done(order[next], std::move(never));
    }
  }

  Model& model_;
  ModelAnswererOptions options_;
  std::shared_ptr<const TokenTrie> trie_;  // shared with the automata
  std::vector<KeptAutomaton> automata_;    // shared with the constraints of running requests
  std::unique_ptr<Scheduler> scheduler_;
  int64_t longest_ = 0, batch_ = 0;  // of scheduler_
};

}  // namespace

std::unique_ptr<Answerer> make_model_answerer(Model& model, const ModelAnswererOptions& options) {
  return std::make_unique<ModelAnswerer>(model, options);
}

}  // namespace quern
