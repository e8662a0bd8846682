// quern pull from a hub that behaves and from ones that don't; quern models; names of models.
#include <nlohmann/json.hpp>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/file.h"
#include "support/scripted_server.h"

namespace quern::test {
namespace {

using nlohmann::json;

// A hub with one repository, o/m, whose files lie in memory.
class Hub {
 public:
  struct File {
    std::string content;
    bool lfs = true;
  };
  std::map<std::string, File> files;
  std::string commit = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
  std::function<bool(const ServedRequest&, ServedConnection&)> first;  // true: it has answered
  ScriptedServer server{[this](const ServedRequest& request, ServedConnection& connection) {
    if (first && first(request, connection)) return;
    if (request.target == "/api/models/o/m/revision/main") {
      return connection.answer(200, json{{"sha", commit}}.dump(), "application/json");
    }
    if (request.target == "/api/models/o/m/tree/" + commit + "?recursive=true") {
      return connection.answer(200, tree().dump(), "application/json");
    }
    const std::string resolve = "/o/m/resolve/" + commit + "/";
    if (request.target.starts_with(resolve)) {
      const auto file = files.find(request.target.substr(resolve.size()));
      if (file != files.end()) {
        return connection.answer_file(request, file->second.content, "ETag: \"e\"\r\n");
      }
    }
    connection.answer(404, R"({"error": "Repository not found"})", "application/json");
  }};

  json tree() const {
    json out = json::array();
    for (const auto& [path, file] : files) {
      json entry = {{"type", "file"}, {"path", path}, {"size", file.content.size()}};
      if (file.lfs) {
        entry["oid"] = std::string(40, '0');  // the pointer's
        entry["lfs"] = {{"oid", sha256(file.content)}, {"size", file.content.size()}};
      } else {
        // printf 'hello' | git hash-object --stdin
        entry["oid"] = file.content == "hello" ? "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"
                                               : std::string(40, '1');
      }
      out.push_back(entry);
    }
    return out;
  }
};

class Pull : public testing::Test {
 protected:
  Outcome pull(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "pull");
    arguments.insert(arguments.end(), {"--base", hub_.server.url()});
    return quern(arguments, around());
  }
  Surroundings around() const {
    return {.variables = {{"XDG_CACHE_HOME", folder_.path().string()}}, .folder = folder_.path()};
  }
  fs::path place() const { return folder_.path() / "quern/models/o/m"; }

  TempFolder folder_;
  Hub hub_;
};

TEST_F(Pull, AModelIsFetchedOnceAndIsThenAName) {
  TempFolder made;
  const fs::path checkpoint = tiny_checkpoint(made);
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    hub_.files[entry.path().filename().string()] = {read_file(entry.path())};
  }
  hub_.files["README.md"] = {"---\nlanguage: en\nlicense: apache-2.0\n---\n# m\n"};
  hub_.files["onnx/model.onnx"] = {"another copy"};
  hub_.files[".gitattributes"] = {"x"};
  const Outcome outcome = pull({"o/m"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("try: quern chat o/m"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.err.find("1 files that hold the weights in other formats"), std::string::npos)
      << outcome.err;
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    EXPECT_EQ(read_file(entry.path()), read_file(place() / entry.path().filename()));
  }
  EXPECT_FALSE(fs::exists(place() / "onnx"));
  EXPECT_FALSE(fs::exists(place().string() + ".partial"));
  const size_t asked = hub_.server.requests().size();
  EXPECT_EQ(pull({"o/m"}).code, 0);
  EXPECT_EQ(hub_.server.requests().size(), asked + 2);  // what it is now, and no file
  EXPECT_EQ(pull({"o/m", "--offline"}).code, 0);
  EXPECT_EQ(hub_.server.requests().size(), asked + 2);

  const Json list = parsed(quern({"models", "--json"}, around()));
  bool found = false;
  for (const Json& model : list.at("models").items()) {
    if (model.at("name").string() != "o/m") continue;
    found = true;
    EXPECT_EQ(model.at("path").string(), place().string());
    EXPECT_EQ(model.at("licence").string(), "apache-2.0");
    EXPECT_EQ(model.at("quantization").string(), "BF16");
  }
  EXPECT_TRUE(found);
  for (const char* name : {"o/m", "m"}) {
    EXPECT_EQ(quern({"inspect", name}, around()).code, 0) << name;
    EXPECT_EQ(quern({"tokenize", name, "hi"}, around()).code, 0) << name;
  }
}

TEST_F(Pull, NamesThatLeaveTheFolderAreRefused) {
  for (const char* name : {"../evil", "/etc/evil", "a/../../evil", "a\\b", "a//b", "./a", "a/"}) {
    hub_.files = {{name, {"x"}}};
    const Outcome outcome = pull({"o/m"});
    EXPECT_EQ(outcome.code, 3) << name << outcome.err;
    EXPECT_FALSE(fs::exists(place())) << name;
  }
  hub_.files = {{"a", {"x"}}};
  hub_.first = [](const ServedRequest& request, ServedConnection& connection) {
    if (request.target.find("/tree/") == std::string::npos) return false;
    connection.answer(200, R"([{"type": "symlink", "path": "a", "size": 1}])", "application/json");
    return true;
  };
  EXPECT_EQ(pull({"o/m"}).code, 3);
  hub_.first = {};
  // A link that lies where it would write.
  fs::create_directories(place().parent_path());
  fs::create_directory_symlink(folder_.path(), place().string() + ".partial");
  const Outcome linked = pull({"o/m"});
  EXPECT_EQ(linked.code, 3) << linked.err;
  EXPECT_NE(linked.err.find("is a link"), std::string::npos) << linked.err;
  for (const char* name : {"../m", "o/../m", "/o/m", "o/m/x", ""}) {
    EXPECT_EQ(quern({"pull", name, "--base", hub_.server.url()}, around()).code, 2) << name;
  }
}

TEST_F(Pull, WhatIsNotWhatWasPublishedIsRefused) {
  hub_.files = {{"a.bin", {"right"}}, {"b", {"hello", false}}};
  hub_.first = [](const ServedRequest& request, ServedConnection& connection) {
    if (!request.target.ends_with("/a.bin")) return false;
    connection.answer_file(request, "wrong");
    return true;
  };
  Outcome outcome = pull({"o/m"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("SHA-256"), std::string::npos) << outcome.err;
  EXPECT_FALSE(fs::exists(place()));
  hub_.first = {};
  EXPECT_EQ(pull({"o/m"}).code, 0);
  hub_.files["b"] = {"other", false};
  hub_.commit[0] = 'd';
  outcome = pull({"o/m"});
  EXPECT_EQ(outcome.code, 2);  // exists
  EXPECT_NE(outcome.err.find("--force"), std::string::npos) << outcome.err;
  outcome = pull({"o/m", "--force"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("git's sum"), std::string::npos) << outcome.err;
  EXPECT_EQ(read_file(place() / "b"), "hello");  // the old one is whole
}

TEST_F(Pull, GoesOnWhereItWasCutAndBeginsAnewAtAnotherCommit) {
  const std::string large(200'000, 'w');
  hub_.files = {{"model.bin", {large}}};
  bool cut = true;
  hub_.first = [&](const ServedRequest& request, ServedConnection& connection) {
    if (!cut || !request.target.ends_with("/model.bin")) return false;
    if (request.headers.contains("range")) {
      connection.answer(403, "no more");
    } else {
      connection.send("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 200000\r\n\r\n" +
                      large.substr(0, 50'000));
      connection.close();
    }
    return true;
  };
  const Outcome first = pull({"o/m"});
  EXPECT_EQ(first.code, 1) << first.err;
  EXPECT_NE(first.err.find("no more"), std::string::npos) << first.err;
  EXPECT_NE(first.err.find("goes on where it stopped"), std::string::npos) << first.err;
  EXPECT_FALSE(fs::exists(place()));
  cut = false;
  const Json second = parsed(pull({"o/m", "--json"}));
  EXPECT_EQ(second.at("received").integer(), 150'000);
  EXPECT_EQ(second.at("bytes").integer(), 200'000);
  EXPECT_EQ(read_file(place() / "model.bin"), large);
}

TEST_F(Pull, TheKeyGoesToTheHubAlone) {
  ScriptedServer elsewhere([](const ServedRequest& request, ServedConnection& connection) {
    connection.answer_file(request, "weights");
  });
  hub_.files = {{"model.gguf", {"weights"}}};
  hub_.first = [&](const ServedRequest& request, ServedConnection& connection) {
    if (!request.target.ends_with("/model.gguf")) return false;
    connection.answer(302, "", "text/plain", "Location: " + elsewhere.url("/cdn?sig=1") + "\r\n");
    return true;
  };
  const fs::path token = folder_.write("token", "hf_secret\n");
  ASSERT_EQ(pull({"o/m", "--token-file", token.string()}).code, 0);
  EXPECT_EQ(hub_.server.requests()[0].headers.at("authorization"), "Bearer hf_secret");
  const std::vector<ServedRequest> there = elsewhere.requests();
  ASSERT_EQ(there.size(), 1u);
  EXPECT_FALSE(there[0].headers.contains("authorization"));
  hub_.first = [](const ServedRequest&, ServedConnection& connection) {
    connection.answer(401, R"({"error": "Access to this model is restricted"})");
    return true;
  };
  const Outcome closed = quern({"pull", "o/n", "--base", hub_.server.url()}, around());
  EXPECT_EQ(closed.code, 1);
  EXPECT_NE(closed.err.find("is restricted"), std::string::npos) << closed.err;
  EXPECT_NE(closed.err.find("--token-file"), std::string::npos) << closed.err;
}

TEST_F(Pull, OneOfManyQuantizationsIsChosen) {
  for (const char* name : {"m-q4.gguf", "m-q8.gguf"}) hub_.files[name] = {name};
  const Outcome outcome = pull({"o/m"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("m-q4.gguf m-q8.gguf"), std::string::npos) << outcome.err;
  EXPECT_EQ(pull({"o/m", "--include", "*q4*"}).code, 0);
  EXPECT_TRUE(fs::exists(place() / "m-q4.gguf"));
  EXPECT_FALSE(fs::exists(place() / "m-q8.gguf"));
}

TEST_F(Pull, APlainAddressIsAFile) {
  hub_.first = [](const ServedRequest& request, ServedConnection& connection) {
    connection.answer_file(request, "content of " + request.target);
    return true;
  };
  const std::string url = hub_.server.url("/x/tiny.gguf");
  const fs::path file = folder_.path() / "here.gguf";
  EXPECT_EQ(quern({"pull", url, "--out", file.string()}, around()).code, 0);
  EXPECT_EQ(read_file(file), "content of /x/tiny.gguf");
  EXPECT_EQ(quern({"pull", url, "--out", file.string()}, around()).code, 2);
  const Outcome wrong = quern(
      {"pull", url, "--out", file.string(), "--force", "--sha256", std::string(64, 'a')}, around());
  EXPECT_EQ(wrong.code, 3);
  EXPECT_EQ(read_file(file), "content of /x/tiny.gguf");
  EXPECT_EQ(quern({"pull", url}, around()).code, 0);
  EXPECT_TRUE(fs::exists(folder_.path() / "quern/models/tiny/tiny.gguf"));
}

TEST(ModelNames, WhatIsNoModelSaysWhatToDo) {
  const Outcome hub = quern({"chat", "Qwen/Qwen2-0.5B"});
  EXPECT_EQ(hub.code, 3);
  EXPECT_NE(hub.err.find("looks like a hub's id"), std::string::npos) << hub.err;
  EXPECT_NE(hub.err.find("quern pull Qwen/Qwen2-0.5B"), std::string::npos) << hub.err;
  const Outcome near = quern({"inspect", "quern-mimi"});
  EXPECT_EQ(near.code, 3);
  EXPECT_NE(near.err.find("did you mean quern-mini?"), std::string::npos) << near.err;
  const Outcome named = quern({"tokenize", "quern-mini", "hi"});
  EXPECT_EQ(named.code, 0) << named.err;
}

TEST(ModelNames, WithoutTheNetworkTheShippedModelAnswers) {
  const TempFolder cache;  // empty: nothing was fetched before
  const Outcome outcome =
      quern({"chat", "-n", "2"},
            {.input = "hello\n",
             .variables = {{"QUERN_OFFLINE", "1"}, {"XDG_CACHE_HOME", cache.path().string()}}});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("quern-mini"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace quern::test
