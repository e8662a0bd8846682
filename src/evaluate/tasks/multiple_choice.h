// What C-Eval, CMMLU and MMLU have in common: a folder with a CSV file for each subject, five rows
// of which are shown before the question.
#pragma once

#include <string>
#include <vector>

#include "evaluate/task.h"

namespace quern {

struct ChoiceRow {
  std::string question;
  std::vector<std::string> options;  // A to D
  std::string answer;                // the letter; empty where the data keep it
};

// Rows of a table whose columns are question, A, B, C, D and, unless `has_answer` is off, answer.
// Throws BadInput for a letter outside A to D.
std::vector<ChoiceRow> choice_rows(const CsvTable& table, bool has_answer,
                                   const ItemOptions& options);

// "A. ...\nB. ...\n" with `begin` before each line instead of `\n` behind it.
std::string option_lines(const ChoiceRow& row);

// Groups of subjects out of a JSON file {"group": ["subject", ...]}; none where there is no file.
using SubjectGroups = std::vector<std::pair<std::string, std::vector<std::string>>>;
SubjectGroups read_groups(const fs::path& path);
SubjectGroups ceval_groups(const DataFolder& data);

// Tables of one split by subject, sorted.
struct Subject {
  std::string name;
  std::vector<ChoiceRow> rows;
};
std::vector<Subject> ceval_subjects(const DataFolder& data, const std::string& split,
                                    const ItemOptions& options);
std::vector<Subject> mmlu_subjects(const DataFolder& data, const std::string& split,
                                   const ItemOptions& options);

inline constexpr const char* kCevalPublished = "huggingface.co/datasets/ceval/ceval-exam";
inline constexpr const char* kMmluPublished = "github.com/hendrycks/test";
inline constexpr const char* kCmmluPublished = "github.com/haonan-li/CMMLU";

}  // namespace quern
