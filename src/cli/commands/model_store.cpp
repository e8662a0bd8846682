#include "cli/commands/model_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "cli/framework/command.h"
#include "core/error.h"
#include "core/log.h"
#include "formats/gguf.h"
#include "text/load.h"

namespace quern::cli {
namespace {

constexpr const char* kDefaultModel = "SmolLM2-135M-Instruct";
constexpr const char* kShippedModel = "quern-mini";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Beside the program: in a build tree, in the source tree that it was built from, or installed.
std::vector<fs::path> program_folders(const char* name) {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  return {program / name, (program / "../.." / name).lexically_normal(),
          (program / "../share/quern" / name).lexically_normal()};
}

bool is_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / "config.json", ignored);
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with('.') && !name.ends_with(".partial")) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// NAME of a folder that holds a checkpoint or GGUF files; else what its folders hold, one level
// deeper: OWNER/NAME.
void collect(const fs::path& folder, const std::string& name, int depth,
             std::vector<StoredModel>& out) {
  if (is_checkpoint(folder)) {
    out.push_back({name, folder});
    return;
  }
  std::vector<fs::path> files, folders;
  std::error_code ignored;
  for (const fs::path& entry : entries_of(folder)) {
    if (fs::is_directory(entry, ignored)) {
      folders.push_back(entry);
    } else if (is_gguf(entry)) {
      files.push_back(entry);
    }
  }
  for (const fs::path& file : files) {
    out.push_back({files.size() == 1 ? name : name + "/" + file.filename().string(), file});
  }
  if (depth == 0 || !files.empty()) return;
  for (const fs::path& below : folders) {
    collect(below, name + "/" + below.filename().string(), depth - 1, out);
  }
}

std::optional<fs::path> shipped() {
  for (const fs::path& folder : program_folders("models")) {
    if (is_checkpoint(folder / kShippedModel)) return folder / kShippedModel;
  }
  return std::nullopt;
}

// "owner/name" as hubs have it; a path that is not there looks otherwise in most cases.
bool looks_like_hub_id(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == text.npos || slash == 0 || slash + 1 == text.size()) return false;
  if (text.find('/', slash + 1) != text.npos || text.starts_with('.')) return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  });
}

// Runs scripts/get-model, which says on standard error what it does. True where it went well.
bool fetch_default_model() {
  if (variable("QUERN_OFFLINE") == "1") return false;
  for (const fs::path& folder : program_folders("scripts")) {
    const std::string script = (folder / "get-model").string();
    if (::access(script.c_str(), X_OK) != 0) continue;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    // Its result, the path, is no part of this command's.
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    std::string program = script, what = kDefaultModel;
    char* arguments[] = {program.data(), what.data(), nullptr};
    pid_t child = 0;
    const int failed = ::posix_spawn(&child, script.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return false;
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) throw Error(Kind::Interrupted, "interrupted");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  return false;
}

// The default model, if it is in the cache and can be talked with; else `why` says what is wrong.
std::optional<fs::path> cached_default(std::string& why) {
  for (const StoredModel& model : stored_models()) {
    if (model.name != kDefaultModel) continue;
    try {
      load_tokenizer(model.path);
      return model.path;
    } catch (const Error& failure) {
      why = failure.line();
    }
  }
  return std::nullopt;
}

}  // namespace

fs::path model_cache() {
  const std::string cache = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (!cache.empty()) return fs::path(cache) / "quern" / "models";
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "quern" / "models";
}

std::vector<StoredModel> stored_models() {
  std::vector<StoredModel> out;
  if (const auto own = shipped()) out.push_back({kShippedModel, *own});
  const fs::path cache = model_cache();
  if (!cache.empty()) {
    for (const fs::path& entry : entries_of(cache)) {
      std::error_code ignored;
      if (fs::is_directory(entry, ignored)) collect(entry, entry.filename().string(), 1, out);
    }
  }
  std::sort(out.begin(), out.end(),
            [](const StoredModel& a, const StoredModel& b) { return a.name < b.name; });
  return out;
}

std::string resolve_model(const std::string& name) {
  std::error_code ignored;
  if (name.empty() || fs::exists(name, ignored)) return name;
  std::vector<std::string> names;
  const StoredModel* by_last_part = nullptr;
  bool several = false;
  const std::vector<StoredModel> models = stored_models();
  for (const StoredModel& model : models) {
    if (model.name == name) return model.path.string();
    names.push_back(model.name);
    if (!model.name.ends_with("/" + name)) continue;
    several = by_last_part != nullptr;
    by_last_part = &model;
  }
  if (by_last_part != nullptr && !several) return by_last_part->path.string();
  if (several) {
    throw_bad_input(fmt::format("{}: several models have this name", printable(name, 200)),
                    "'quern models' lists them; give the whole name");
  }
  if (looks_like_hub_id(name)) {
    throw_bad_input(fmt::format("{}: looks like a hub's id and is not here", printable(name, 200)),
                    "get it with: quern pull " + name);
  }
  const std::string guess = nearest(name, names);
  throw_bad_input(fmt::format("{}: there is no such file, folder or model", printable(name, 200)),
                  guess.empty() ? "name a checkpoint's folder, a GGUF file, or a model that 'quern "
                                  "models' lists"
                                : "did you mean " + guess + "?");
}

std::string resolve_named_model(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != text.npos && equals > 0 && text.find('/') > equals) {
    return text.substr(0, equals + 1) + resolve_model(text.substr(equals + 1));
  }
  const std::string path = resolve_model(text);
  // It is served by the name that it was called by.
  return path == text ? text : text.substr(text.rfind('/') + 1) + "=" + path;
}

fs::path default_model() {
  std::string why;
  if (const auto model = cached_default(why)) return *model;
  if (why.empty() && fetch_default_model()) {
    if (const auto model = cached_default(why)) return *model;
  }
  if (const auto model = shipped()) {
    log::warning(fmt::format("{}; {}, which only tells stories, takes its place",
                             why.empty() ? std::string(kDefaultModel) + " is not here" : why,
                             kShippedModel));
    return *model;
  }
  throw Error(Kind::Misused, "no model is named, and none comes with this build",
              "name the folder of a checkpoint, or get one with 'quern pull'");
}

}  // namespace quern::cli
