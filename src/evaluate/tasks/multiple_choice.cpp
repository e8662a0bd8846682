#include "evaluate/tasks/multiple_choice.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace quern {
namespace {

// The cells that pandas' reader takes for missing values and prints as `nan`.
constexpr std::string_view kMissing[] = {
    "",     "#N/A", "#N/A N/A", "#NA",  "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A",  "NA",       "NULL", "NaN",     "None",     "n/a",  "nan",  "null"};

}  // namespace

std::vector<ChoiceRow> choice_rows(const CsvTable& table, bool has_answer,
                                   const ItemOptions& options) {
  const auto cell = [&](int64_t row, size_t column) {
    const std::string& text = table.cell(row, column);
    const bool missing = options.pandas_none && std::find(std::begin(kMissing), std::end(kMissing),
                                                          text) != std::end(kMissing);
    return missing ? std::string("nan") : text;
  };
  std::vector<ChoiceRow> rows;
  for (int64_t i = 0; i < table.rows(); ++i) {
    ChoiceRow row;
    row.question = cell(i, 0);
    for (size_t column = 1; column <= 4; ++column) row.options.push_back(cell(i, column));
    if (has_answer) {
      row.answer = table.cell(i, 5);
      if (row.answer.size() != 1 || row.answer[0] < 'A' || row.answer[0] > 'D') {
        throw_bad_input(fmt::format("{}: the answer of question {} is '{}', expected A, B, C or D",
                                    table.source(), i + 1, printable(row.answer, 40)));
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string option_lines(const ChoiceRow& row) {
  std::string out;
  for (size_t i = 0; i < row.options.size(); ++i) {
    out += fmt::format("{}. {}\n", static_cast<char>('A' + i), row.options[i]);
  }
  return out;
}

SubjectGroups read_groups(const fs::path& path) {
  SubjectGroups groups;
  if (!fs::exists(path)) return groups;
  for (const auto& [name, subjects] : Json::parse_file(path.string()).members()) {
    groups.emplace_back(name, std::vector<std::string>());
    for (const Json& subject : subjects.items()) groups.back().second.push_back(subject.string());
  }
  return groups;
}

SubjectGroups ceval_groups(const DataFolder& data) {
  // The file names each subject's group; the authors' order is kept for those it knows.
  SubjectGroups groups = {{"STEM", {}}, {"Social Science", {}}, {"Humanities", {}}, {"Other", {}}};
  const fs::path path = data / "ceval/subject_mapping.json";
  if (!fs::exists(path)) {
    groups.clear();
  } else {
    for (const auto& [subject, names] : Json::parse_file(path.string()).members()) {
      const std::string& group = names[2].string();
      auto found = std::find_if(groups.begin(), groups.end(),
                                [&](const auto& entry) { return entry.first == group; });
      if (found == groups.end()) found = groups.insert(groups.end(), {group, {}});
      found->second.push_back(subject);
    }
  }
  groups.emplace_back("Hard",
                      std::vector<std::string>{"advanced_mathematics", "discrete_mathematics",
                                               "probability_and_statistics", "college_physics",
                                               "college_chemistry", "high_school_mathematics",
                                               "high_school_physics", "high_school_chemistry"});
  return groups;
}

std::vector<Subject> ceval_subjects(const DataFolder& data, const std::string& split,
                                    const ItemOptions& options) {
  const bool has_answer = split != "test";
  std::vector<std::string> columns = {"question", "A", "B", "C", "D"};
  if (has_answer) columns.push_back("answer");
  std::vector<Subject> subjects;
  for (const std::string& name :
       data.names("ceval/" + split, "_" + split + ".csv", kCevalPublished)) {
    const fs::path path = data / ("ceval/" + split + "/" + name + "_" + split + ".csv");
    subjects.push_back({name, choice_rows(CsvTable(path, columns), has_answer, options)});
  }
  return subjects;
}

std::vector<Subject> mmlu_subjects(const DataFolder& data, const std::string& split,
                                   const ItemOptions& options) {
  std::vector<Subject> subjects;
  for (const std::string& name :
       data.names("mmlu/" + split, "_" + split + ".csv", kMmluPublished)) {
    const fs::path path = data / ("mmlu/" + split + "/" + name + "_" + split + ".csv");
    subjects.push_back({name, choice_rows(CsvTable::headless(path, 6), true, options)});
  }
  return subjects;
}

Item choice_item(const std::string& task, const std::string& split, const Subject& subject,
                 size_t row) {
  const ChoiceRow& asked = subject.rows[row];
  Item item{.task = task, .subset = subject.name, .split = split};
  item.index = static_cast<int64_t>(row);
  item.id = fmt::format("{}/{}/{}", task, subject.name, row);
  if (!asked.answer.empty()) item.target = asked.answer;
  item.question = asked.question;
  item.options = asked.options;
  return item;
}

const Subject& examples_for(const Subject& subject, const std::vector<Subject>& examples,
                            const std::string& task) {
  const auto found = std::find_if(examples.begin(), examples.end(),
                                  [&](const Subject& other) { return other.name == subject.name; });
  if (found == examples.end()) {
    throw_bad_input(fmt::format("{}: the subject {} has no examples in dev", task, subject.name));
  }
  return *found;
}

}  // namespace quern
