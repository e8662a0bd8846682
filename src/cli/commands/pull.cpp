// quern pull: a model's files from a hub or any server, whole or absent.
#include <fcntl.h>
#include <fmt/format.h>
#include <fnmatch.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/commands/chat_partner.h"
#include "cli/commands/model_store.h"
#include "cli/framework/command.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "net/download.h"
#include "net/url.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

constexpr const char* kHub = "https://huggingface.co";
constexpr const char* kManifest = ".quern-pull.json";  // what a folder was pulled from
constexpr size_t kMaxFiles = 10'000;
constexpr int kMaxPages = 100;

struct Arguments {
  std::string source, base, revision, out, token_file, trusted, sha256;
  std::vector<std::string> include;
  bool offline = false, force = false, json = false;
};

struct RemoteFile {
  std::string path;
  uint64_t size = 0;
  std::string sha256;  // of files kept by LFS
  std::string blob;    // git's own sum of the others: 40 hexadecimal digits
};

struct Repository {
  std::string id, base, revision;  // revision: as asked for
  std::string commit;              // what it is now; empty where the server does not say
  std::vector<RemoteFile> files;
};

// Throws BadInput for a server's name of a file that is no path inside the folder, in visible
// characters.
void check_name(const std::string& path, const std::string& source) {
  join_inside("folder", path, source);
  const bool odd =
      path.empty() || path.size() > 1024 || path.find('\\') != path.npos ||
      path.find("//") != path.npos || path.ends_with('/') || path == "." ||
      path.starts_with("./") || path.find("/./") != path.npos ||
      std::any_of(path.begin(), path.end(), [](unsigned char c) { return c < ' ' || c == 0x7F; });
  if (odd) {
    throw_bad_input(fmt::format("{}: names a file '{}'", source, printable(path, 200)),
                    "expected a path below the repository's folder");
  }
}

// Hidden files and our own endings are no part of a model.
bool hidden(std::string_view path) {
  return path.starts_with('.') || path.find("/.") != path.npos || path.ends_with(".part") ||
         path.ends_with(".part.etag");
}

// Git's name of a file's content: SHA-1 of "blob SIZE\0" and the bytes.
std::string git_blob(const fs::path& file) {
  const std::string text = read_file(file, uint64_t{1} << 32);
  const std::string whole = fmt::format("blob {}", text.size()) + '\0' + text;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(whole.data(), whole.size(), digest, &length, EVP_sha1(), nullptr);
  std::string out;
  for (unsigned i = 0; i < length; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

std::string base_of(const Arguments& args) {
  const char* endpoint = std::getenv("HF_ENDPOINT");
  std::string base = !args.base.empty()                 ? args.base
                     : endpoint != nullptr && *endpoint ? endpoint
                                                        : kHub;
  while (base.ends_with('/')) base.pop_back();
  return base;
}

// "https://hub/OWNER/NAME" or ".../tree/REVISION" of the hub itself is the repository it shows.
void read_hub_page(Arguments& args, const std::string& base) {
  if (!args.source.starts_with(base + "/")) return;
  std::string rest = args.source.substr(base.size() + 1);
  while (rest.ends_with('/')) rest.pop_back();
  const size_t tree = rest.find("/tree/");
  const std::string id = rest.substr(0, tree);
  if (std::count(id.begin(), id.end(), '/') != 1) return;
  if (tree != rest.npos) {
    const std::string shown = rest.substr(tree + 6);
    if (!args.revision.empty() && args.revision != shown) {
      throw Error(Kind::Misused, fmt::format("--revision is '{}', the address names '{}'",
                                             printable(args.revision, 80), printable(shown, 80)));
    }
    args.revision = shown;
  }
  args.source = id;
}

// Whether it names a file anywhere, not a hub's repository.
bool is_address(Arguments args) {
  read_hub_page(args, base_of(args));
  return args.source.find("://") != args.source.npos;
}

[[noreturn]] void fail(const net::HttpReply& reply, const std::string& what, bool has_token) {
  const bool refused = reply.status == 401 || reply.status == 403;
  throw Error(Kind::Failed, fmt::format("{}: {}", what, reply.problem()),
              refused && !has_token ? "it may need a key: --token-file FILE, or HF_TOKEN" : "");
}

class Puller {
 public:
  explicit Puller(Arguments args) : args_(std::move(args)) {
    base_ = base_of(args_);
    net::Url::parse(base_, "the base address");
    read_hub_page(args_, base_);
  }

  void run() {
    if (args_.source.find("://") != args_.source.npos) {
      pull_url();
    } else {
      pull_repository();
    }
  }

 private:
  std::string token() const {
    if (!args_.token_file.empty()) return read_api_key(args_.token_file);
    const char* value = std::getenv("HF_TOKEN");
    return value == nullptr ? "" : value;
  }

  net::HttpClient client() const {
    net::ClientOptions options;
    options.url = base_;
    options.api_key = token();
    options.trusted = args_.trusted;
    options.silence_seconds = 60;
    options.max_body_bytes = uint64_t{64} << 20;
    options.max_redirects = 10;
    return net::HttpClient(std::move(options));
  }

  fs::path target(const std::string& name) const {
    if (!args_.out.empty()) return args_.out;
    const fs::path cache = model_cache();
    if (cache.empty()) {
      throw Error(Kind::Misused, "neither XDG_CACHE_HOME nor HOME is set",
                  "name a folder: --out DIR");
    }
    return cache / name;
  }

  void pull_url();
  void pull_repository();
  Repository list(net::HttpClient& client) const;
  std::vector<RemoteFile> choose(const Repository& repository) const;
  void fetch_all(net::HttpClient& client, const Repository& repository, const fs::path& folder);
  void report(const fs::path& path, const Repository* repository, uint64_t bytes, uint64_t received,
              const std::vector<RemoteFile>& files) const;

  Arguments args_;
  std::string base_;
};

// Commit and files of a repository, all pages of them.
Repository Puller::list(net::HttpClient& client) const {
  Repository out{args_.source, base_, args_.revision.empty() ? "main" : args_.revision, "", {}};
  const std::string api = "/api/models/" + net::percent_encode(out.id, true);
  const std::string revision = net::percent_encode(out.revision);
  const std::string source = base_ + "/" + out.id;
  const auto ask = [&](const std::string& path) {
    net::HttpReply reply = client.send({.path = path}, &interrupted);
    check_interrupted();
    if (!reply.ok()) fail(reply, source, !token().empty());
    return reply;
  };
  const Json info = Json::parse(ask(api + "/revision/" + revision).body, source);
  out.commit = info.string_or("sha", "");
  // The files of one commit, whatever is pushed meanwhile.
  const std::string at = out.commit.empty() ? revision : net::percent_encode(out.commit);
  std::string page = api + "/tree/" + at + "?recursive=true";
  for (int pages = 0; !page.empty(); ++pages) {
    if (pages == kMaxPages) throw_bad_input(source + ": its list of files does not end");
    const net::HttpReply reply = ask(page);
    for (const Json& entry : Json::parse(reply.body, source).items()) {
      const std::string type = entry.string_or("type", "file");
      if (type == "directory") continue;
      const std::string path = entry.at("path").string();
      check_name(path, source);
      if (type != "file") {
        throw_bad_input(fmt::format("{}: '{}' is a {}, not a file", source, printable(path, 200),
                                    printable(type, 40)));
      }
      RemoteFile file{path, static_cast<uint64_t>(entry.at("size").integer(0)), "", ""};
      if (const auto lfs = entry.find("lfs")) {
        file.sha256 = lfs->string_or("oid", lfs->string_or("sha256", ""));
        file.size =
            static_cast<uint64_t>(lfs->integer_or("size", static_cast<int64_t>(file.size), 0));
      } else {
        file.blob = entry.string_or("oid", "");
      }
      out.files.push_back(std::move(file));
      if (out.files.size() > kMaxFiles) throw_bad_input(source + ": has too many files");
    }
    page.clear();
    // Link: <https://...&cursor=...>; rel="next"
    const std::string link(reply.header("link"));
    const size_t next = link.find("rel=\"next\"");
    if (next == link.npos) break;
    const size_t begin = link.rfind('<', next), end = link.find('>', begin);
    if (begin == link.npos || end == link.npos) break;
    const net::Url url =
        net::Url::parse(reply.url).resolve(link.substr(begin + 1, end - begin - 1));
    if (url.origin() != net::Url::parse(base_).origin()) {
      throw_bad_input(source + ": its list of files goes on at another host");
    }
    page = url.text;
  }
  std::sort(out.files.begin(), out.files.end(),
            [](const RemoteFile& a, const RemoteFile& b) { return a.path < b.path; });
  for (size_t i = 1; i < out.files.size(); ++i) {
    if (out.files[i].path == out.files[i - 1].path) {
      throw_bad_input(fmt::format("{}: names '{}' twice", source, out.files[i].path));
    }
  }
  return out;
}

// The files that --include asks for. Without it the weights come once: beside safetensors no copy in
// another format.
std::vector<RemoteFile> Puller::choose(const Repository& repository) const {
  std::vector<RemoteFile> out;
  std::vector<std::string> ggufs;
  bool safetensors = false;
  for (const RemoteFile& file : repository.files) {
    safetensors |= file.path.ends_with(".safetensors");
    if (file.path.ends_with(".gguf")) ggufs.push_back(file.path);
  }
  if (args_.include.empty() && ggufs.size() > 1 && !safetensors) {
    std::string some;
    for (size_t i = 0; i < std::min<size_t>(ggufs.size(), 12); ++i) some += " " + ggufs[i];
    throw Error(Kind::Misused,
                fmt::format("{} has {} GGUF files:{}{}", repository.id, ggufs.size(), some,
                            ggufs.size() > 12 ? " ..." : ""),
                "choose with --include, e.g. --include '*Q4_K_M*'");
  }
  size_t left_out = 0;
  for (const RemoteFile& file : repository.files) {
    if (hidden(file.path)) continue;
    bool wanted;
    if (!args_.include.empty()) {
      wanted =
          std::any_of(args_.include.begin(), args_.include.end(), [&](const std::string& glob) {
            return ::fnmatch(glob.c_str(), file.path.c_str(), 0) == 0;
          });
    } else {
      constexpr std::string_view kOthers[] = {".bin", ".pt",   ".pth",       ".h5",  ".msgpack",
                                              ".ot",  ".onnx", ".onnx_data", ".gguf"};
      wanted = !safetensors ||
               std::none_of(std::begin(kOthers), std::end(kOthers),
                            [&](std::string_view end) { return file.path.ends_with(end); });
    }
    if (wanted) {
      out.push_back(file);
    } else {
      ++left_out;
    }
  }
  if (out.empty()) {
    throw Error(
        Kind::Misused,
        fmt::format("{}: none of its {} files is wanted", repository.id, repository.files.size()),
        "--include takes patterns such as '*.safetensors'");
  }
  if (left_out > 0 && args_.include.empty()) {
    fmt::print(stderr,
               "quern: {} files that hold the weights in other formats are left out; "
               "--include '*' takes all\n",
               left_out);
  }
  return out;
}

void sum_is(const fs::path& file, const RemoteFile& remote, const std::string& source) {
  if (remote.blob.size() != 40 || !remote.sha256.empty()) return;
  const std::string found = git_blob(file);
  if (found == remote.blob) return;
  std::error_code ignored;
  fs::remove(file, ignored);
  throw_bad_input(fmt::format("{}/{}: its content has git's sum {}, expected {}", source,
                              remote.path, found, remote.blob),
                  "what came is not what was published; it was removed");
}

// A folder of an earlier try is gone on with, if nothing in it is a link.
void check_links(const fs::path& folder) {
  const auto refuse = [](const fs::path& path) {
    if (fs::is_symlink(fs::symlink_status(path))) {
      throw_bad_input(path.string() + ": is a link", "remove it");
    }
  };
  refuse(folder);
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(folder, ignored)) refuse(entry.path());
}

void Puller::fetch_all(net::HttpClient& client, const Repository& repository,
                       const fs::path& folder) {
  const std::string source = base_ + "/" + repository.id;
  const std::vector<RemoteFile> files = choose(repository);
  const fs::path partial = folder.string() + ".partial";
  check_links(partial);
  const ordered_json manifest = {{"repository", repository.id},
                                 {"base", base_},
                                 {"revision", repository.revision},
                                 {"commit", repository.commit}};
  const fs::path note = partial / kManifest;
  std::error_code failed;
  // Files begun at another commit are no part of this one.
  if (fs::exists(note) && read_file(note, 1 << 20) != dump(manifest, 2) + "\n") {
    fs::remove_all(partial, failed);
  }
  fs::create_directories(partial, failed);
  if (failed) throw Error(Kind::Failed, partial.string() + ": " + failed.message());
  write_file(note, dump(manifest, 2) + "\n");
  uint64_t total = 0, there = 0;
  for (const RemoteFile& file : files) {
    total += file.size;
    for (const char* ending : {"", ".part"}) {
      const fs::path path = join_inside(partial, file.path + ending, source);
      if (fs::exists(path, failed)) there += fs::file_size(path, failed);
    }
  }
  there = std::min(there, total);
  if (const auto space = fs::space(partial, failed); !failed && space.available < total - there) {
    throw Error(Kind::NoResources,
                fmt::format("{} more are needed, {} are free at {}", human_bytes(total - there),
                            human_bytes(space.available), partial.string()));
  }
  Progress progress("pulling " + repository.id, total, "bytes", there);
  uint64_t done = 0, received = 0;
  const std::string at = repository.commit.empty() ? repository.revision : repository.commit;
  for (const RemoteFile& file : files) {
    const fs::path path = join_inside(partial, file.path, source);
    fs::create_directories(path.parent_path(), failed);
    const bool whole = fs::exists(path, failed) && fs::file_size(path, failed) == file.size &&
                       (file.sha256.empty() ? file.blob.size() == 40 && git_blob(path) == file.blob
                                            : sha256_file(path) == file.sha256);
    if (!whole) {
      fs::remove(path, failed);
      const net::Downloaded got = net::download(
          client,
          {.url = fmt::format("/{}/resolve/{}/{}", net::percent_encode(repository.id, true),
                              net::percent_encode(at), net::percent_encode(file.path, true)),
           .file = path,
           .size = file.size,
           .sha256 = file.sha256,
           .on_progress = [&](uint64_t bytes,
                              uint64_t) { progress.update(done + bytes, file.path); }},
          &interrupted);
      received += got.received;
      sum_is(path, file, source);
    }
    done += file.size;
    progress.update(done, file.path);
  }
  progress.finish();
  for (const auto& entry : fs::recursive_directory_iterator(partial)) sync_path(entry.path());
  // The old one steps aside until the new one has its name.
  const fs::path old = folder.string() + ".old.partial";
  fs::remove_all(old, failed);
  const bool replaces = fs::exists(folder, failed);
  if (replaces) fs::rename(folder, old);
  fs::rename(partial, folder);
  sync_path(folder.parent_path());
  if (replaces) fs::remove_all(old, failed);
  report(folder, &repository, total, received, files);
}

void Puller::pull_repository() {
  if (std::count(args_.source.begin(), args_.source.end(), '/') > 1 ||
      args_.source.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789-_./") != args_.source.npos ||
      args_.source.starts_with('.') || args_.source.starts_with('/') ||
      args_.source.find("..") != args_.source.npos || args_.source.empty()) {
    throw Error(Kind::Misused, fmt::format("'{}' is no repository", printable(args_.source, 200)),
                "expected OWNER/NAME, or an address that begins with http:// or https://");
  }
  const fs::path folder = target(args_.source);
  const fs::path note = folder / kManifest;
  std::error_code ignored;
  const bool there = fs::exists(fs::symlink_status(folder, ignored));
  std::optional<Json> manifest;
  if (there && fs::exists(note, ignored))
    manifest = Json::parse(read_file(note, 1 << 20), note.string());
  if (args_.offline) {
    if (!manifest || manifest->string_or("repository", "") != args_.source) {
      throw_bad_input(fmt::format("{}: is not at {}", args_.source, folder.string()),
                      "without --offline it is fetched");
    }
    const std::string revision = manifest->string_or("revision", "");
    if (!args_.revision.empty() && args_.revision != revision &&
        args_.revision != manifest->string_or("commit", "")) {
      throw_bad_input(fmt::format("{}: is at {} in the revision '{}'", args_.source,
                                  folder.string(), printable(revision, 80)),
                      "without --offline another one is fetched");
    }
    report(folder, nullptr, 0, 0, {});
    return;
  }
  net::HttpClient hub = client();
  const Repository repository = list(hub);
  if (there && !args_.force) {
    const bool same = manifest && manifest->string_or("repository", "") == repository.id &&
                      manifest->string_or("base", "") == base_;
    if (same && args_.include.empty() && !repository.commit.empty() &&
        manifest->string_or("commit", "") == repository.commit) {
      report(folder, &repository, 0, 0, {});
      return;
    }
    throw Error(Kind::Misused, folder.string() + ": exists already",
                same ? "--force replaces it by what the hub has now"
                     : "name another place with --out, or replace it with --force");
  }
  fetch_all(hub, repository, folder);
}

void Puller::pull_url() {
  const net::Url url = net::Url::parse(args_.source);
  std::string name = url.path.substr(url.path.rfind('/') + 1);
  if (name.empty() && args_.out.empty()) {
    throw Error(Kind::Misused, "the address ends with no file's name", "name one: --out FILE");
  }
  fs::path file = args_.out;
  std::error_code ignored;
  if (args_.out.empty()) {
    check_name(name, args_.source);
    const std::string stem = fs::path(name).stem().string();
    file = target(stem.substr(0, stem.find(".Q"))) / name;
  } else if (fs::is_directory(file, ignored)) {
    check_name(name, args_.source);
    file /= name;
  }
  const bool there = fs::exists(fs::symlink_status(file, ignored));
  if (args_.offline) {
    if (!there) throw_bad_input(file.string() + ": is not here", "without --offline it is fetched");
    if (const std::string sum = args_.sha256.empty() ? "" : sha256_file(file);
        !std::equal(sum.begin(), sum.end(), args_.sha256.begin(), args_.sha256.end(),
                    [](char a, char b) { return a == std::tolower(b); })) {
      throw_bad_input(fmt::format("{}: its SHA-256 is {}, expected {}", file.string(), sum,
                                  printable(args_.sha256, 80)));
    }
    report(file, nullptr, 0, 0, {});
    return;
  }
  if (there && !args_.force) {
    throw Error(Kind::Misused, file.string() + ": exists already", "--force replaces it");
  }
  if (!file.parent_path().empty()) fs::create_directories(file.parent_path(), ignored);
  net::HttpClient web = client();
  Progress progress("pulling " + name, 0, "bytes");
  const net::Downloaded got =
      net::download(web,
                    {.url = args_.source,
                     .file = file,
                     .sha256 = args_.sha256,
                     .on_progress = [&](uint64_t bytes, uint64_t) { progress.update(bytes); }},
                    &interrupted);
  progress.finish();
  sync_path(file.parent_path());
  report(file, nullptr, got.size, got.received,
         {{file.filename().string(), got.size, got.sha256, ""}});
}

void Puller::report(const fs::path& path, const Repository* repository, uint64_t bytes,
                    uint64_t received, const std::vector<RemoteFile>& files) const {
  if (args_.json) {
    ordered_json out = {{"path", path.string()}, {"bytes", bytes}, {"received", received}};
    if (repository != nullptr) {
      out["repository"] = repository->id;
      out["revision"] = repository->revision;
      out["commit"] = repository->commit;
    }
    out["files"] = ordered_json::array();
    for (const RemoteFile& file : files) {
      out["files"].push_back({{"path", file.path}, {"size", file.size}});
      if (!file.sha256.empty()) out["files"].back()["sha256"] = file.sha256;
    }
    print(dump(out, 2) + "\n");
    return;
  }
  if (files.empty()) {
    print(fmt::format("{} is here already\n", path.string()));
  } else {
    print(fmt::format("{}: {} in {} files, {} fetched now\n", path.string(), human_bytes(bytes),
                      files.size(), human_bytes(received)));
    if (files.size() == 1 && !files[0].sha256.empty()) print("sha256 " + files[0].sha256 + "\n");
  }
  print(fmt::format("try: quern chat {}\n",
                    repository != nullptr && args_.out.empty() ? repository->id : path.string()));
}

}  // namespace

void add_pull(CLI::App& root) {
  Command command(
      root, "pull", "Fetch a model's files from a hub or an address",
      {{"pull Qwen/Qwen2-0.5B-Instruct",
        "into the cache; then 'quern chat Qwen/Qwen2-0.5B-Instruct'"},
       {"pull Qwen/Qwen2-0.5B-Instruct-GGUF --include '*q4_k_m.gguf'", "one file of many"},
       {"pull https://example.org/model.gguf --out model.gguf", "a single file"}});
  auto args = std::make_shared<Arguments>();
  command.positional("source", args->source, "OWNER/NAME of a hub's repository, or an address")
      .required();
  command.option("--base", args->base, "Address of a hub-compatible server",
                 std::string("HF_ENDPOINT, or ") + kHub);
  command.option("--revision", args->revision, "Branch, tag or commit", "main");
  command.option("--include", args->include, "Files to fetch, by shell pattern; may be repeated",
                 "the model once");
  command.option("--out", args->out, "Folder or file to make", "in the cache");
  command.option("--sha256", args->sha256, "Sum that a single file must have");
  command.option("--token-file", args->token_file,
                 "File with the key for the hub; it is sent to no other host", "HF_TOKEN");
  command.option("--trusted-certificates", args->trusted,
                 "Certificates in PEM form to trust beside the system's");
  command.flag("--offline", args->offline, "Only look whether it is here");
  command.flag("--force", args->force, "Replace what is there");
  command.flag("--json", args->json, "Print one JSON object");
  command.refuse({"--sha256"}, "goes with the address of a file",
                 [args] { return !is_address(*args); });
  command.refuse({"--revision", "--include"}, "goes with a hub's repository",
                 [args] { return is_address(*args); });
  command.refuse({"--include"}, "and --offline exclude each other",
                 [args] { return args->offline; });
  command.on_run([args] {
    const InterruptScope scope;
    Puller(*args).run();
  });
}

}  // namespace quern::cli
