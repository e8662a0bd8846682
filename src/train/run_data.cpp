#include "train/run_data.h"

#include <fmt/format.h>

#include "core/error.h"
#include "data/pack.h"
#include "data/pack_chats.h"
#include "data/preferences.h"
#include "text/chatml.h"

namespace quern {
namespace {

void check_tokenizer(const fs::path& folder, const DatasetManifest& manifest,
                     const Tokenizer& tokenizer) {
  if (manifest.tokenizer_hash == tokenizer.hash()) return;
  throw_bad_input(
      fmt::format("{}: was packed with another tokenizer (hash {}, the run's is {})",
                  (folder / "manifest.json").string(),
                  printable(manifest.tokenizer_hash.substr(0, 12)), tokenizer.hash().substr(0, 12)),
      "pack the data again with the run's tokenizer");
}

// What became of a source's conversations, in words; nothing where all are whole.
void note(const ChatPackReport& report, const std::string& name, std::vector<std::string>& notes) {
  if (report.shortened + report.left_out + report.bad > 0) {
    notes.push_back(
        fmt::format("{}: of {} conversations {} were shortened, {} left out as too long, {} as bad",
                    name, report.conversations + report.left_out + report.bad, report.shortened,
                    report.left_out, report.bad));
  }
  for (const std::string& problem : report.problems) notes.push_back(problem);
}

std::unique_ptr<Dataset> open_source(const RunConfig& config, const RunSource& source,
                                     const char* kind, std::vector<std::string>& notes,
                                     const Tokenizer& tokenizer, const fs::path& run,
                                     ThreadPool& pool,
                                     const std::function<void(const std::string&)>& progress) {
  fs::path folder = source.path;
  if (folder.empty()) {
    folder = run / "data" / fmt::format("{}-{}", kind, printable(source.name, 60));
    if (!fs::exists(folder / "manifest.json")) {
      fs::create_directories(folder.parent_path());
      AtomicFolder made(folder);
      if (source.chat) {
        const ChatWriter writer(config.tokenizer, tokenizer);
        const ChatPackOptions chats{.name = source.name,
                                    .form = source.form,
                                    .when_long = source.when_long,
                                    .max_length = config.seq,
                                    .strict = source.strict};
        const auto told = [&] { progress(source.name); };
        note(source.preferences
                 ? pack_preferences(source.files, tokenizer, writer.labeller(source.mask),
                                    made.temporary(), chats, told)
                 : pack_chats(source.files, tokenizer, writer.labeller(source.mask),
                              made.temporary(), chats, pool, told),
             source.name, notes);
        made.commit();
        return std::make_unique<Dataset>(folder, pool);
      }
      PackOptions options{.documents = source.documents, .name = source.name};
      options.system = kDefaultSystem;
      pack(source.files, tokenizer, made.temporary(), options, pool,
           [&](uint64_t) { progress(source.name); });
      made.commit();
    }
  }
  auto data = std::make_unique<Dataset>(folder, pool);
  check_tokenizer(folder, data->manifest(), tokenizer);
  return data;
}

}  // namespace

void check_run_source(const RunSource& source, const Tokenizer& tokenizer) {
  if (source.path.empty()) {
    for (const fs::path& file : source.files) MappedFile{file};
    return;
  }
  check_tokenizer(source.path, read_manifest(source.path), tokenizer);
}

RunData open_run_data(const RunConfig& config, const Tokenizer& tokenizer, const fs::path& run,
                      ThreadPool& pool, const std::function<void(const std::string&)>& progress) {
  RunData out;
  for (const RunSource& source : config.train) {
    out.train.push_back(
        open_source(config, source, "train", out.notes, tokenizer, run, pool, progress));
  }
  for (const RunSource& source : config.valid) {
    out.valid.push_back(
        open_source(config, source, "valid", out.notes, tokenizer, run, pool, progress));
  }
  return out;
}

}  // namespace quern
