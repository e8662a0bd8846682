#include "data/flow/pipeline_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/ascii.h"
#include "core/error.h"
#include "core/json_string.h"
#include "core/toml.h"

namespace quern {
namespace {

class Loader {
 public:
  Loader(const fs::path& path, const fs::path& data, fs::path out)
      : path_(path), here_(path.parent_path()), data_(data), out_(std::move(out)) {}

  PipelineFile load() {
    const Json json = parse_toml_file(path_.string());
    json.only_keys({"stage"});
    const auto items = json.at("stage").items();
    for (const Json& item : items) {
      const std::string name = item.at("name").string();
      check_name(item, name);
      if (!names_.insert(name).second) item.at("name").fail("is there twice");
    }
    if (items.empty()) json.fail("has no [[stage]]");
    for (const Json& item : items) stages_.push_back(read(item));
    PipelineFile out;
    std::set<std::string> placed, open;
    for (const PipelineStage& stage : stages_) place(stage, placed, open, out);
    return out;
  }

 private:
  static void check_name(const Json& item, const std::string& name) {
    const auto good = [](char c) {
      return is_ascii_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_';
    };
    if (!name.empty() && name.size() <= 60 && std::ranges::all_of(name, good)) return;
    item.at("name").fail("is no name for a folder", "letters, digits, - and _");
  }

  PipelineStage read(const Json& item) {
    item.only_keys({"name", "use", "in", "settings", "source"});
    PipelineStage stage;
    stage.name = item.at("name").string();
    stage.use = item.at("use").string();
    if (const auto in = item.find("in")) {
      const std::vector<Json> all = in->is_array() ? in->items() : std::vector<Json>{*in};
      for (const Json& one : all) stage.inputs.push_back(file(one, one.string(), stage));
    }
    if (const auto settings = item.find("settings")) {
      for (const auto& [key, value] : settings->members()) {
        const std::vector<Json> all =
            value.is_array() ? value.items() : std::vector<Json>{value};  // an option that repeats
        for (const Json& one : all) stage.settings.emplace_back(key, setting(one, stage));
      }
    }
    if (const auto sources = item.find("source")) {
      for (const Json& source : sources->items()) stage.sources += mix_source(source, stage);
    }
    if (stage.inputs.empty() && stage.sources.empty()) item.fail("reads nothing", "in = [\"...\"]");
    return stage;
  }

  std::string setting(const Json& value, PipelineStage& stage) {
    if (value.is_bool()) return value.boolean() ? "on" : "off";
    if (value.is_integer()) return fmt::format("{}", value.integer());
    if (value.is_number()) return fmt::format("{}", value.number());
    return expand(value, value.string(), stage);
  }

  // A table of mix.toml, with its files where they are.
  std::string mix_source(const Json& source, PipelineStage& stage) {
    source.only_keys({"name", "files", "weight", "epochs", "cap"});
    std::string out = "[[source]]\n";
    out += "name = " + json_string(source.at("name").string()) + "\nfiles = [";
    for (const Json& one : source.at("files").items()) {
      out += json_string(fs::absolute(file(one, one.string(), stage)).string()) + ", ";
    }
    out += "]\n";
    for (const char* key : {"weight", "epochs", "cap"}) {
      if (const auto value = source.find(key))
        out += fmt::format("{} = {}\n", key, value->number());
    }
    return out;
  }

  // A stage's name, or a file: beside the data, else beside the pipeline's file.
  std::string file(const Json& at, const std::string& word, PipelineStage& stage) {
    if (names_.contains(word)) {
      stage.needs.push_back(word);
      return (out_ / word).string();
    }
    const fs::path path = expand(at, word, stage);
    if (path.is_absolute() || word.starts_with("{")) return path.string();
    return ((data_.empty() ? here_ : data_) / path).string();
  }

  std::string expand(const Json& at, const std::string& text, PipelineStage& stage) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const size_t end = text[i] == '{' ? text.find('}', i) : text.npos;
      if (end == text.npos) {
        out += text[i++];
        continue;
      }
      const std::string name = text.substr(i + 1, end - i - 1);
      if (name == "here") {
        out += here_.empty() ? "." : here_.string();
      } else if (name == "data") {
        if (data_.empty()) at.fail("names {data}", "say where it is with --data DIR");
        out += data_.string();
      } else if (names_.contains(name)) {
        stage.needs.push_back(name);
        out += (out_ / name).string();
      } else {
        const std::string near = nearest(name, names_);
        at.fail(fmt::format("names {{{}}}, which is no stage", printable(name, 60)),
                near.empty() ? "" : fmt::format("did you mean {{{}}}?", near));
      }
      i = end + 1;
    }
    return out;
  }

  // Puts a stage behind those that it needs.
  void place(const PipelineStage& stage, std::set<std::string>& placed, std::set<std::string>& open,
             PipelineFile& out) {
    if (placed.contains(stage.name)) return;
    if (!open.insert(stage.name).second) {
      throw_bad_input(
          fmt::format("{}: the stage {} needs its own output", path_.string(), stage.name));
    }
    for (const std::string& need : stage.needs) {
      place(*std::ranges::find(stages_, need, &PipelineStage::name), placed, open, out);
    }
    open.erase(stage.name);
    placed.insert(stage.name);
    out.stages.push_back(stage);
  }

  fs::path path_, here_, data_, out_;
  std::set<std::string> names_;
  std::vector<PipelineStage> stages_;
};

}  // namespace

PipelineFile PipelineFile::load(const fs::path& path, const fs::path& data, const fs::path& out) {
  return Loader(path, data, out).load();
}

}  // namespace quern
