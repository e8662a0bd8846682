#include "evaluate/server_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace quern {
namespace {

// Asked for together. A server that died costs one such round of vain tries.
constexpr size_t kRound = 32;

}  // namespace

// The first item that the server did not answer, and why.
struct ServerSource::Failure {
  std::string item, what;
  Kind kind = Kind::Failed;

  void note(const Item& of, const std::string& why, Kind why_kind) {
    if (why_kind == Kind::Interrupted || !item.empty()) return;
    item = of.id;
    what = why;
    kind = why_kind;
  }
};

nlohmann::ordered_json ServerSource::identity() const {
  return {{"server", server_.name()}, {"weights", "a server's"}};
}

void ServerSource::ask_texts(std::span<const Question> questions, size_t first,
                             const std::function<void(size_t, ItemAnswer)>& take,
                             const std::atomic<bool>& cancel, Failure& failure) {
  std::vector<CompleteRequest> requests(questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    const Item& item = *questions[i].item;
    requests[i].prompt = item.prompt;
    requests[i].messages = item.messages;
    if (questions[i].sampling != nullptr) {
      requests[i].sampling = *questions[i].sampling;
      requests[i].stream = static_cast<uint64_t>(item.sample);
    } else {
      requests[i].sampling.greedy = true;
    }
    requests[i].max_new_tokens = item.max_new_tokens;
    // No stop string says when a text is complete that a function judges: it runs to its limit.
    if (!questions[i].complete) requests[i].stop = item.stop;
  }
  CompleteEvents events;
  events.done = [&](size_t i, const Answer& answer) {
    if (answer.finish == FinishReason::Interrupted) return;
    if (answer.finish == FinishReason::Failed) {
      failure.note(*questions[i].item, answer.failure, answer.failure_kind);
      return;
    }
    ItemAnswer out;
    out.response.text = answer.text;
    out.prompt_tokens = answer.prompt_tokens;
    out.reused_tokens = answer.cached_tokens;
    out.new_tokens = answer.new_tokens;
    out.finish = std::string(name(answer.finish));
    out.seconds = answer.seconds;
    answered_ = true;
    take(first + i, std::move(out));
  };
  server_.complete(requests, events, &cancel);
}

void ServerSource::ask_choices(std::span<const Question> questions, size_t first,
                               const std::function<void(size_t, ItemAnswer)>& take,
                               const std::atomic<bool>& cancel, Failure& failure) {
  struct Place {
    size_t question, choice;
  };
  std::vector<LikelihoodRequest> requests;
  std::vector<Place> places;
  std::vector<ItemAnswer> answers(questions.size());
  std::vector<size_t> missing(questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    const Item& item = *questions[i].item;
    missing[i] = item.choices.size();
    answers[i].response.choice_logprobs.resize(item.choices.size());
    answers[i].finish = "score";
    for (size_t c = 0; c < item.choices.size(); ++c) {
      LikelihoodRequest request;
      request.context = item.prompt;
      request.continuation = item.choices[c];
      requests.push_back(std::move(request));
      places.push_back({i, c});
    }
  }
  server_.log_likelihood(
      requests,
      [&](size_t r, const Likelihood& likelihood) {
        const auto [i, choice] = places[r];
        if (!likelihood.known) {
          failure.note(*questions[i].item, likelihood.failure, likelihood.failure_kind);
          return;
        }
        ItemAnswer& answer = answers[i];
        answer.response.choice_logprobs[choice] = likelihood.sum;
        answer.prompt_tokens = likelihood.context_tokens;
        answer.reused_tokens += likelihood.cached_tokens;
        if (--missing[i] > 0) return;
        answered_ = true;
        take(first + i, std::move(answer));
      },
      &cancel);
}

void ServerSource::answer(std::span<const Question> questions,
                          const std::function<void(size_t, ItemAnswer)>& take,
                          const std::atomic<bool>& cancel) {
  Failure failure;
  for (size_t first = 0; first < questions.size() && !cancel; first += kRound) {
    const auto round = questions.subspan(first, std::min(kRound, questions.size() - first));
    // The items of a task are of one kind.
    if (round.front().item->choices.empty()) {
      ask_texts(round, first, take, cancel, failure);
    } else {
      ask_choices(round, first, take, cancel, failure);
    }
    if (failure.item.empty()) continue;
    const bool some = answered_ && failure.kind == Kind::Failed;
    throw Error(some ? Kind::Partial : failure.kind,
                fmt::format("{}: {}: {}", server_.name(), failure.item, failure.what),
                some ? "what it answered is kept; the same command goes on from there" : "");
  }
}

}  // namespace quern
