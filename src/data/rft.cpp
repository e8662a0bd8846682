#include "data/rft.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/error.h"
#include "core/json_string.h"
#include "core/utf8.h"
#include "data/arithmetic.h"

namespace quern {
namespace {

std::u32string characters(std::string_view text) {
  std::u32string out;
  while (!text.empty()) {
    const utf8::Point next = utf8::decode(text);
    out += next.value;
    text.remove_prefix(next.length);
  }
  return out;
}

bool is_answer_character(char c) noexcept { return (c >= '0' && c <= '9') || c == '.' || c == ','; }

}  // namespace

std::optional<double> final_answer(std::string_view reply) {
  reply = reply.substr(0, reply.find('\0'));
  constexpr std::string_view kMark = "#### ";
  for (size_t at = reply.find(kMark); at != std::string_view::npos;
       at = reply.find(kMark, at + 1)) {
    size_t i = at + kMark.size();
    std::string word;
    if (i < reply.size() && reply[i] == '-') word += reply[i++];
    const size_t begin = i;
    for (; i < reply.size() && is_answer_character(reply[i]); ++i) {
      if (reply[i] != ',') word += reply[i];
    }
    if (i > begin) return parse_python_float(word);
  }
  return std::nullopt;
}

std::vector<std::string> equations(std::string_view reply) {
  std::vector<std::string> out;
  for (size_t at = reply.find("<<"); at != std::string_view::npos; at = reply.find("<<", at)) {
    const size_t begin = at + 2;
    const size_t end = reply.find('>', begin);
    if (end == std::string_view::npos) break;
    if (!reply.substr(end).starts_with(">>")) {
      at = end + 1;  // no mark that begins before this end has another
      continue;
    }
    std::string equation(reply.substr(begin, end - begin));
    out.push_back(std::move(equation));
    at = end + 2;
  }
  return out;
}

bool equation_holds(std::string_view equation) {
  const size_t equals = equation.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view behind = equation.substr(equals + 1);
  const auto left = evaluate_arithmetic(equation.substr(0, equals));
  const auto right = parse_python_float(behind.substr(0, behind.find('=')));
  return left && right && std::abs(*left - *right) < 1e-3;
}

// Myers' bit vectors in blocks of 64 characters (Myers 1999; Hyyrö 2003).
size_t character_distance(std::string_view a_text, std::string_view b_text) {
  const std::u32string a = characters(a_text), b = characters(b_text);
  if (a.empty()) return b.size();
  const size_t blocks = (a.size() + 63) / 64;
  std::unordered_map<char32_t, std::vector<uint64_t>> where;  // of a character in `a`
  for (size_t i = 0; i < a.size(); ++i) {
    auto& bits = where[a[i]];
    bits.resize(blocks);
    bits[i / 64] |= uint64_t{1} << (i % 64);
  }
  std::vector<uint64_t> up(blocks, ~uint64_t{0}), down(blocks, 0);  // vertical differences +1, -1
  const std::vector<uint64_t> nowhere(blocks, 0);
  size_t distance = a.size();
  const uint64_t last = uint64_t{1} << ((a.size() - 1) % 64);
  for (const char32_t c : b) {
    const auto found = where.find(c);
    const std::vector<uint64_t>& equal = found == where.end() ? nowhere : found->second;
    uint64_t plus_in = 1, minus_in = 0;  // horizontal difference that comes in from above
    for (size_t i = 0; i < blocks; ++i) {
      const uint64_t eq = equal[i] | minus_in;
      const uint64_t x = equal[i] | down[i];
      const uint64_t d = (((eq & up[i]) + up[i]) ^ up[i]) | eq;
      uint64_t plus = down[i] | ~(d | up[i]);
      uint64_t minus = up[i] & d;
      if (i + 1 == blocks) {
        distance += (plus & last) != 0;
        distance -= (minus & last) != 0;
      }
      const uint64_t plus_out = plus >> 63, minus_out = minus >> 63;
      plus = (plus << 1) | plus_in;
      minus = (minus << 1) | minus_in;
      up[i] = minus | ~(x | plus);
      down[i] = plus & x;
      plus_in = plus_out;
      minus_in = minus_out;
    }
  }
  return distance;
}

std::string_view name_of(ReplyVerdict verdict) {
  switch (verdict) {
    case ReplyVerdict::Keep:
      return "keep";
    case ReplyVerdict::NoAnswer:
      return "no_answer";
    case ReplyVerdict::WrongAnswer:
      return "wrong_answer";
    case ReplyVerdict::InvalidEquation:
      return "invalid_equation";
    case ReplyVerdict::Duplicate:
      return "duplicate";
  }
  return "";
}

std::vector<ReplyVerdict> judge_replies(double gold, const std::vector<std::string>& replies,
                                        KeptPath kept) {
  std::vector<ReplyVerdict> out;
  struct Path {
    std::string key;
    size_t reply;
  };
  std::vector<Path> paths;
  for (size_t i = 0; i < replies.size(); ++i) {
    const auto answer = final_answer(replies[i]);
    if (!answer || *answer != gold) {
      out.push_back(answer ? ReplyVerdict::WrongAnswer : ReplyVerdict::NoAnswer);
      continue;
    }
    const auto steps = equations(replies[i]);
    if (!std::ranges::all_of(steps, equation_holds)) {
      out.push_back(ReplyVerdict::InvalidEquation);
      continue;
    }
    std::string key;
    for (const std::string& step : steps) key += (key.empty() ? "" : "|") + step;
    std::erase(key, ' ');
    const auto same = std::ranges::find(paths, key, &Path::key);
    if (same == paths.end()) {
      paths.push_back({key, i});
      out.push_back(ReplyVerdict::Keep);
      continue;
    }
    out.push_back(ReplyVerdict::Duplicate);
    if (kept == KeptPath::First || replies[i] == replies[same->reply]) continue;
    size_t now = 0, then = 0;
    for (const Path& other : paths) {
      if (replies[other.reply] == replies[same->reply]) continue;
      now += character_distance(replies[same->reply], replies[other.reply]);
      then += character_distance(replies[i], replies[other.reply]);
    }
    if (then > now) {
      out[same->reply] = ReplyVerdict::Duplicate;
      out[i] = ReplyVerdict::Keep;
      same->reply = i;
    }
  }
  return out;
}

namespace {

// An id that is a text or a number, as one text; empty where there is none.
std::string given_id(const Record& record) {
  if (auto text = record.string("id")) return *text;
  return std::string(record.raw("id"));
}

std::string id_text(const Record& record, const StageOptions& stage, const Place& place) {
  if (std::string id = given_id(record); !id.empty()) return id;
  return fmt::format("{}:{}", stage.inputs[place.input].string(), place.line);
}

struct PlaceHash {
  size_t operator()(const Place& place) const noexcept {
    return place.input * 0x9E3779B97F4A7C15 + static_cast<size_t>(place.line);
  }
};

struct Asked {
  std::string id, question;
  double gold = 0;
  std::vector<std::string> replies;
  std::vector<Place> places;  // of the replies
  std::vector<ReplyVerdict> verdicts;
};

struct Judged {
  std::vector<Asked> questions;
  std::unordered_map<std::string, size_t> by_id;
  std::unordered_map<Place, std::pair<size_t, ReplyVerdict>, PlaceHash> replies;
};

std::string required_id(const Record& record) {
  std::string id = given_id(record);
  if (id.empty()) throw_bad_input("has no id: whose question it answers isn't said");
  return id;
}

std::string required(const Record& record, std::string_view field) {
  auto text = record.string(field);
  if (!text) throw_bad_input(fmt::format("has no text in the field '{}'", field));
  return *text;
}

double gold_answer(const Record& record) {
  const auto gold = final_answer(required(record, "answer"));
  if (!gold) throw_bad_input("has an answer without a number behind '#### '");
  return *gold;
}

Judged judge_all(const RftOptions& options, const StageOptions& stage) {
  struct Item {
    bool is_question;
    Place place;
    std::string id, text;
    double gold;
  };
  const size_t question_files = options.questions.size();
  Judged judged;
  scan_records<std::vector<Item>>(
      stage, "",
      [&]() -> std::function<void(Record&, const Place&, std::vector<Item>&)> {
        return [&](Record& record, const Place& place, std::vector<Item>& out) {
          if (place.input < question_files) {
            out.push_back({true, place, id_text(record, stage, place), required(record, "question"),
                           gold_answer(record)});
          } else {
            out.push_back({false, place, required_id(record), required(record, "response"), 0});
          }
        };
      },
      [&](std::vector<Item> items) {
        for (Item& item : items) {
          if (item.is_question) {
            if (!judged.by_id.emplace(item.id, judged.questions.size()).second) {
              throw_bad_input(fmt::format("{}: line {}: the id '{}' is there twice",
                                          stage.inputs[item.place.input].string(), item.place.line,
                                          printable(item.id, 80)));
            }
            judged.questions.push_back({item.id, std::move(item.text), item.gold, {}, {}, {}});
          } else if (const auto found = judged.by_id.find(item.id); found != judged.by_id.end()) {
            judged.questions[found->second].replies.push_back(std::move(item.text));
            judged.questions[found->second].places.push_back(item.place);
          }
        }
      });
  for (size_t i = 0; i < judged.questions.size(); ++i) {
    Asked& asked = judged.questions[i];
    asked.verdicts = judge_replies(asked.gold, asked.replies, options.kept);
    for (size_t j = 0; j < asked.replies.size(); ++j) {
      judged.replies.emplace(asked.places[j], std::pair(i, asked.verdicts[j]));
    }
    asked.replies.clear();
  }
  return judged;
}

class RftStage final : public Stage {
 public:
  RftStage(const RftOptions& options, const Judged& judged) : options_(options), judged_(judged) {}

  std::string_view name() const override { return "rft"; }
  nlohmann::ordered_json settings() const override {
    return {{"questions", options_.questions.size()},
            {"keep", options_.kept == KeptPath::First ? "first" : "farthest"}};
  }
  std::string text_field() const override { return ""; }
  std::unique_ptr<StageWorker> worker() const override {
    class Worker final : public StageWorker {
     public:
      explicit Worker(const RftStage& stage) : stage_(stage) {}
      Verdict process(Record& record, const Place& place) override {
        if (place.input < stage_.options_.questions.size()) {
          gold_answer(record);
          write(record, required(record, "question"), required(record, "answer"), "gold");
          return {};
        }
        const std::string response = required(record, "response"), id = required_id(record);
        const auto found = stage_.judged_.replies.find(place);
        if (found == stage_.judged_.replies.end()) {
          throw_bad_input(
              fmt::format("answers no question: there is no id '{}'", printable(id, 80)));
        }
        const auto& [question, verdict] = found->second;
        write(record, stage_.judged_.questions[question].question, response, "sampled");
        if (verdict == ReplyVerdict::Keep) return {};
        return {false, fmt::format("rft.{}", name_of(verdict)), 0, 0};
      }

     private:
      static void write(Record& record, const std::string& question, const std::string& response,
                        std::string_view path) {
        record.set("question", question);
        record.set("response", response);
        record.set_raw("messages", fmt::format("[{{\"role\": \"user\", \"content\": {}}}, "
                                               "{{\"role\": \"assistant\", \"content\": {}}}]",
                                               json_string(question), json_string(response)));
        record.set("path", path);
      }
      const RftStage& stage_;
    };
    return std::make_unique<Worker>(*this);
  }

 private:
  const RftOptions& options_;
  const Judged& judged_;
};

}  // namespace

RftReport run_rft(const RftOptions& options, const StageOptions& stage) {
  const Judged judged = judge_all(options, stage);
  RftReport report;
  report.stage = run_stage(RftStage(options, judged), stage);
  report.questions = static_cast<int64_t>(judged.questions.size());
  AtomicFile counts(stage.out / "questions.jsonl");
  for (const Asked& asked : judged.questions) {
    std::string line =
        fmt::format("{{\"id\": {}, \"replies\": {}", json_string(asked.id), asked.verdicts.size());
    int64_t right = 0;
    for (const auto verdict :
         {ReplyVerdict::Keep, ReplyVerdict::Duplicate, ReplyVerdict::InvalidEquation,
          ReplyVerdict::WrongAnswer, ReplyVerdict::NoAnswer}) {
      const auto count = std::ranges::count(asked.verdicts, verdict);
      line += fmt::format(", \"{}\": {}", name_of(verdict), count);
      if (verdict != ReplyVerdict::WrongAnswer && verdict != ReplyVerdict::NoAnswer) right += count;
    }
    report.solved += right > 0;
    counts.write(line + "}\n");
  }
  counts.commit();
  return report;
}

}  // namespace quern
