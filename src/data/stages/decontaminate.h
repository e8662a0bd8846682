// Text that holds questions of evaluation sets is found by the word n-grams that both share (Brown
// et al. 2020, appendix C): words are letters and digits in lower case; Han, kana, Hangul and Thai
// characters are words of their own.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/pipeline/stage.h"
#include "data/stages/questions.h"

namespace quern {

struct DecontaminateOptions {
  int ngram = 13;    // words
  int shortest = 8;  // a question of so many words, but less than `ngram`, is one n-gram as a whole
  double cover = 0.5;  // least part of a question's n-grams that makes a hit; 0: one n-gram
  bool mask = false;   // cut the passages and keep the document
  std::string text = "text";
};

// Finds questions in texts. Immutable when built: threads share it.
class QuestionIndex {
 public:
  QuestionIndex(std::vector<Question> questions, const DecontaminateOptions& options);
  ~QuestionIndex();

  struct Hit {
    size_t question;    // its index
    double covered;     // part of its n-grams that the text holds
    size_t begin, end;  // bytes of the text, from the first word in common to the last of that run
    // All runs of words that the text has in common with the question, in order, as byte ranges.
    std::vector<std::pair<size_t, size_t>> passages;
  };
  // The questions that `text` holds, in their order.
  std::vector<Hit> find(std::string_view text) const;

  const std::vector<Question>& questions() const noexcept { return questions_; }
  // Questions of too few words to be looked for.
  bool too_short(size_t question) const;

 private:
  struct State;
  std::vector<Question> questions_;
  DecontaminateOptions options_;
  std::unique_ptr<State> state_;
};

// Drops documents with a hit (rule decontaminate.cover), or cuts the passages; each document's
// `contamination` lists {task, question, covered, text}. `index` must outlive the stage.
std::unique_ptr<Stage> make_decontaminate_stage(const QuestionIndex& index,
                                                const DecontaminateOptions& options);

// What a run found, by task; counted from its output.
struct TaskContamination {
  std::string task;
  int64_t questions = 0, too_short = 0, found = 0;  // questions; found in any document
  int64_t documents = 0;                            // that hold one or more of them
};
// Writes OUT/contamination.jsonl, a line per hit: {document, task, question, covered, text}.
std::vector<TaskContamination> report_contamination(const QuestionIndex& index,
                                                    const fs::path& out);

}  // namespace quern
