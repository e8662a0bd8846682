// Downloads from servers that cut, lie and change their mind.
#include "net/download.h"

#include <sys/stat.h>

#include "core/file.h"
#include "support/scripted_server.h"
#include "support/support.h"

namespace quern::test {
namespace {

std::string content() {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "line " + std::to_string(i) + "\n";
  return text;
}

struct Place {
  TempFolder folder;
  fs::path file = folder.path() / "file";
  net::Download wanted(const std::string& url) const {
    return {.url = url, .file = file, .tries = 3};
  }
  bool empty() const { return fs::is_empty(folder.path()); }
};

net::Downloaded fetch(const net::Download& wanted) {
  net::HttpClient client({});
  return net::download(client, wanted);
}

TEST(Download, GoesOnWhereTheConnectionWasCut) {
  const std::string text = content();
  int asked = 0;
  ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
    if (++asked > 3) return connection.answer_file(request, text, "ETag: \"v1\"\r\n");
    // Says the right length and sends a part of it.
    const auto range = request.headers.find("range");
    const size_t from = range == request.headers.end() ? 0 : std::stoull(range->second.substr(6));
    std::string head = from == 0
                           ? "HTTP/1.1 200 OK\r\n"
                           : "HTTP/1.1 206 Part\r\nContent-Range: bytes " + std::to_string(from) +
                                 "-" + std::to_string(text.size() - 1) + "/" +
                                 std::to_string(text.size()) + "\r\n";
    head += "ETag: \"v1\"\r\nContent-Length: " + std::to_string(text.size() - from) + "\r\n\r\n";
    connection.send(head + text.substr(from, 10'000));
    connection.close();
  });
  const Place place;
  net::Download wanted = place.wanted(server.url("/f"));
  wanted.sha256 = sha256(text);
  uint64_t last = 0;
  wanted.on_progress = [&](uint64_t bytes, uint64_t total) {
    EXPECT_GT(bytes, last);
    EXPECT_EQ(total, text.size());
    last = bytes;
  };
  const net::Downloaded got = fetch(wanted);
  EXPECT_EQ(read_file(place.file), text);
  EXPECT_EQ(got.received, text.size());  // each byte once
  EXPECT_EQ(got.sha256, sha256(text));
  EXPECT_EQ(asked, 4);
  EXPECT_EQ(server.requests()[1].headers.at("range"), "bytes=10000-");
  EXPECT_EQ(server.requests()[1].headers.at("if-range"), "\"v1\"");
  EXPECT_FALSE(fs::exists(place.file.string() + ".part"));
  EXPECT_FALSE(fs::exists(place.file.string() + ".part.etag"));
}

TEST(Download, ASecondCallGoesOnWithWhatTheFirstLeft) {
  const std::string text = content();
  bool cut = true;
  ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
    if (!cut) return connection.answer_file(request, text, "ETag: \"v1\"\r\n");
    connection.send("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: " +
                    std::to_string(text.size()) + "\r\n\r\n" + text.substr(0, 500));
    connection.close();
  });
  const Place place;
  net::Download wanted = place.wanted(server.url("/f"));
  wanted.tries = 1;
  // A try that brought something doesn't count against the tries; the next one brings nothing new.
  expect_error(
      [&] {
        std::atomic<bool> cancel = false;
        net::HttpClient client({});
        wanted.on_progress = [&](uint64_t, uint64_t) { cancel = true; };
        net::download(client, wanted, &cancel);
      },
      Kind::Interrupted, {});
  cut = false;
  wanted.on_progress = {};
  const net::Downloaded got = fetch(wanted);
  EXPECT_EQ(got.received, text.size() - 500);
  EXPECT_EQ(read_file(place.file), text);
}

TEST(Download, ContentThatChangesBetweenTriesIsNeverMixed) {
  const std::string old_text = content(), new_text = std::string(300'000, 'n');
  for (const bool honest : {true, false}) {
    int asked = 0;
    ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
      if (++asked == 1) {
        connection.send("HTTP/1.1 200 OK\r\nETag: \"old\"\r\nContent-Length: " +
                        std::to_string(old_text.size()) + "\r\n\r\n" + old_text.substr(0, 1000));
        return connection.close();
      }
      if (!honest) return connection.answer_file(request, new_text, "ETag: \"new\"\r\n");
      connection.answer(200, new_text, "text/plain", "ETag: \"new\"\r\n");  // as If-Range wants it
    });
    const Place place;
    if (honest) {
      fetch(place.wanted(server.url("/f")));
      EXPECT_EQ(read_file(place.file), new_text);
    } else {
      expect_error([&] { fetch(place.wanted(server.url("/f"))); }, Kind::BadInput, {"changed"});
      EXPECT_FALSE(fs::exists(place.file));
    }
  }
}

TEST(Download, AWrongSumOrLengthIsRefused) {
  const std::string text = content();
  ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
    if (request.target == "/endless") {
      connection.send("HTTP/1.1 200 OK\r\n\r\n");
      while (connection.send(text)) continue;
      return connection.close();
    }
    connection.answer_file(request, text);
  });
  const Place place;
  net::Download wanted = place.wanted(server.url("/f"));
  wanted.sha256 = std::string(64, '0');
  expect_error([&] { fetch(wanted); }, Kind::BadInput, {"SHA-256", sha256(text)});
  EXPECT_TRUE(place.empty());
  wanted.sha256.clear();
  wanted.size = 3;
  expect_error([&] { fetch(wanted); }, Kind::BadInput, {"expected 3"});
  EXPECT_FALSE(fs::exists(place.file));
  wanted.url = server.url("/endless");
  expect_error([&] { fetch(wanted); }, Kind::BadInput, {"more than its 3 bytes"});
}

TEST(Download, WaitsWhereTheServerIsBusyAndGivesUpWhereItRefuses) {
  int asked = 0;
  ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
    if (request.target == "/no") return connection.answer(404, R"({"error": "no such file"})");
    if (++asked < 3) return connection.answer(429, "", "text/plain", "Retry-After: 0\r\n");
    connection.answer_file(request, "here");
  });
  const Place place;
  EXPECT_EQ(fetch(place.wanted(server.url("/f"))).size, 4u);
  EXPECT_EQ(asked, 3);
  expect_error([&] { fetch(place.wanted(server.url("/no"))); }, Kind::Failed, {"no such file"});
  EXPECT_EQ(server.requests().size(), 4u);
}

TEST(Download, FollowsNoLinkThatLiesInItsWay) {
  ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
    connection.answer_file(request, "new");
  });
  const Place place;
  const fs::path precious = place.folder.write("precious", "mine");
  fs::create_symlink(precious, place.file.string() + ".part");
  expect_error([&] { fetch(place.wanted(server.url("/f"))); }, Kind::BadInput, {});
  EXPECT_EQ(read_file(precious), "mine");
}

TEST(Download, AnEmptyFileIsAFile) {
  ScriptedServer server([&](const ServedRequest& request, ServedConnection& connection) {
    connection.answer_file(request, "");
  });
  const Place place;
  EXPECT_EQ(fetch(place.wanted(server.url("/f"))).size, 0u);
  EXPECT_EQ(fs::file_size(place.file), 0u);
}

}  // namespace
}  // namespace quern::test
