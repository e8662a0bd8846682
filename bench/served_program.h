// For benchmarks: a server as a process of its own, and models made for it.
#pragma once

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"

namespace quern {

// Starts words[0] with the other words as its arguments; 0 where it cannot be started.
inline pid_t spawn(std::vector<std::string> words, const posix_spawn_file_actions_t* actions) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error =
      ::posix_spawn(&process, arguments[0], actions, nullptr, arguments.data(), environ);
  return error == 0 ? process : 0;
}

// The program as a process of its own, whose memory can be measured.
class Program {
 public:
  Program(const std::string& program, const std::string& model,
          const std::vector<std::string>& options) {
    std::vector<std::string> words = {program, "serve",        model, "--port",
                                      "0",     "--access-log", "none"};
    words.insert(words.end(), options.begin(), options.end());
    int ends[2];
    if (::pipe(ends) != 0) throw Error(Kind::Failed, "there is no pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    process_ = spawn(words, &actions);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    if (process_ == 0) {
      ::close(ends[0]);
      throw Error(Kind::Failed, program + " cannot be started");
    }
    std::string said;
    char byte = 0;
    while (::read(ends[0], &byte, 1) == 1 && byte != '\n') said += byte;
    ::close(ends[0]);
    constexpr std::string_view kReady = "listening on ";
    if (!said.starts_with(kReady)) throw Error(Kind::Failed, "the server did not start");
    url_ = said.substr(kReady.size());
  }
  ~Program() {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const std::string& url() const { return url_; }
  uint16_t port() const {
    return static_cast<uint16_t>(std::stoi(url_.substr(url_.rfind(':') + 1)));
  }
  // The most memory that it ever had, in MB.
  double peak_mb() const {
    std::ifstream file(fmt::format("/proc/{}/status", process_));
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
    }
    return 0;
  }

 private:
  pid_t process_ = 0;
  std::string url_;
};

// A folder for a model that is made and goes again.
class MadeModel {
 public:
  MadeModel(const std::string& program, const std::string& tokenizer, const nlohmann::json& shape) {
    std::string name = (fs::temp_directory_path() / "quern-bench-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Error(Kind::Failed, name + " cannot be made");
    folder_ = name;
    std::ofstream(folder_ / "shape.json") << shape.dump();
    const std::string out = (folder_ / "model").string();
    std::vector<std::string> words = {program,
                                      "init",
                                      out,
                                      "--config",
                                      (folder_ / "shape.json").string(),
                                      "--tokenizer",
                                      (fs::path(tokenizer) / "tokenizer.json").string()};
    int status = -1;
    if (const pid_t process = spawn(words, nullptr); process != 0) {
      ::waitpid(process, &status, 0);
    }
    if (status != 0) {
      remove();  // a constructor that throws has no destructor
      throw Error(Kind::Failed, "quern init failed");
    }
  }
  ~MadeModel() { remove(); }
  MadeModel(const MadeModel&) = delete;
  MadeModel& operator=(const MadeModel&) = delete;
  std::string path() const { return (folder_ / "model").string(); }

 private:
  void remove() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  fs::path folder_;
};

}  // namespace quern
