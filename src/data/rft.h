// Rejection sampling for fine-tuning (Yuan et al. 2023, arXiv:2308.01825): of a model's replies to
// questions with a known answer, those are kept that end in it, whose every calculation holds, and
// that go a way of their own. The verdicts are those of the paper's program.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/pipeline/stage.h"

namespace quern {

// The number behind the first "#### "; nothing where there is none.
std::optional<double> final_answer(std::string_view reply);

// The calculations <<...>> of a reply, without blanks, in order.
std::vector<std::string> equations(std::string_view reply);

// True if the left side of "3*(4+1)=15", read as Python reads arithmetic, is the number between the
// first equals sign and the second within 0.001. What is no arithmetic does not hold.
bool equation_holds(std::string_view equation);

// Levenshtein distance in characters; valid UTF-8.
size_t character_distance(std::string_view a, std::string_view b);

enum class ReplyVerdict { Keep, NoAnswer, WrongAnswer, InvalidEquation, Duplicate };
std::string_view name_of(ReplyVerdict verdict);  // "keep", "no_answer", ...

enum class KeptPath { Farthest, First };  // of two replies with one list of equations

// Verdicts of the replies to one question, in their order. Of replies with the same list of
// equations one is kept: the first, or the one whose distances to the other kept replies sum to
// more.
std::vector<ReplyVerdict> judge_replies(double gold, const std::vector<std::string>& replies,
                                        KeptPath kept);

struct RftOptions {
  std::vector<fs::path> questions;  // records {id, question, answer}; the answer is a gold path
  std::vector<fs::path> responses;  // records {id, response}, the id of their question
  KeptPath kept = KeptPath::Farthest;
};

struct RftReport {
  StageReport stage;
  int64_t questions = 0, solved = 0;  // solved: with one right reply or more
};

// Writes gold paths and kept replies as records {id, question, response, messages, path}, a shard
// for each input, questions first, and OUT/questions.jsonl, the verdicts' counts of each question.
// `stage.inputs` must be the questions' files and then the responses'.
RftReport run_rft(const RftOptions& options, const StageOptions& stage);

}  // namespace quern
