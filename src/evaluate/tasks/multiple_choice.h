// C-Eval, CMMLU and MMLU: a folder with a CSV file for each subject, and rows of its examples that
// are shown before the question.
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

// "A. ...\nB. ...\n"
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

// The item of a row, all but what is asked: id, subject, the right letter, what scorers read.
Item choice_item(const std::string& task, const std::string& split, const Subject& subject,
                 size_t row);
// The subject of that name among `examples`. Throws BadInput where there is none.
const Subject& examples_for(const Subject& subject, const std::vector<Subject>& examples,
                            const std::string& task);

inline constexpr const char* kCevalPublished = "huggingface.co/datasets/ceval/ceval-exam";
inline constexpr const char* kMmluPublished = "github.com/hendrycks/test";
inline constexpr const char* kCmmluPublished = "github.com/haonan-li/CMMLU";

}  // namespace quern
