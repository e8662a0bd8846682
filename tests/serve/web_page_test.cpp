// The embedded pages: how they are sent, and what stays behind the key.
#include "serve/web_page.h"

#include <zlib.h>

#include "serve/test_server.h"

namespace quern::test {
namespace {

// What zlib makes of a gzip stream, whatever we make of it.
std::string gunzip(const std::string& bytes) {
  std::string out;
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 16 + MAX_WBITS), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  int status = Z_OK;
  while (status == Z_OK) {
    char block[4096];
    stream.next_out = reinterpret_cast<Bytef*>(block);
    stream.avail_out = sizeof block;
    status = inflate(&stream, Z_NO_FLUSH);
    out.append(block, sizeof block - stream.avail_out);
  }
  inflateEnd(&stream);
  EXPECT_EQ(status, Z_STREAM_END);
  return out;
}

// A program built without npm has one page, which says so.
bool built() { return serve::find_web_file("/runs") != nullptr; }

TEST(AcceptEncoding, IsReadAsTheStandardSays) {
  using serve::accepts_coding;
  EXPECT_TRUE(accepts_coding("gzip", "gzip"));
  EXPECT_TRUE(accepts_coding("deflate, GZip;q=0.5, br", "gzip"));
  EXPECT_TRUE(accepts_coding("*", "gzip"));
  EXPECT_TRUE(accepts_coding("gzip ; q=0.001", "gzip"));
  EXPECT_FALSE(accepts_coding("", "gzip"));
  EXPECT_FALSE(accepts_coding("identity", "gzip"));
  EXPECT_FALSE(accepts_coding("xgzip, gzipx", "gzip"));
  EXPECT_FALSE(accepts_coding("gzip;q=0", "gzip"));
  EXPECT_FALSE(accepts_coding("gzip;q=0.000, *", "gzip"));
  EXPECT_FALSE(accepts_coding("*;q=0", "gzip"));
  EXPECT_FALSE(accepts_coding(",;,;q=,", "gzip"));
}

TEST(WebPage, ComesWithAPolicyThatLetsNothingElseIn) {
  const TestServer server;
  const Answer page = server.get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_NE(page.body.find("<title>Quern"), page.body.npos);
  const std::string policy = page.headers.at("content-security-policy");
  EXPECT_TRUE(policy.starts_with("default-src 'none'; script-src 'self';")) << policy;
  EXPECT_EQ(policy.find("unsafe"), policy.npos);
  EXPECT_EQ(page.headers.at("cache-control"), "no-cache");
  EXPECT_EQ(page.headers.at("x-content-type-options"), "nosniff");
  // Nothing in it names another place, nor is a script or style.
  EXPECT_EQ(page.body.find("http"), page.body.npos);
  EXPECT_EQ(page.body.find("<style"), page.body.npos);
}

TEST(WebPage, IsCompressedForThoseWhoReadIt) {
  if (!built()) GTEST_SKIP() << "skipped: the web pages are not built";
  const TestServer server;
  const Answer plain = server.get("/"), small = server.get("/", {{"Accept-Encoding", "gzip"}});
  EXPECT_FALSE(plain.headers.contains("content-encoding"));
  EXPECT_EQ(small.headers.at("content-encoding"), "gzip");
  EXPECT_EQ(small.headers.at("vary"), "Accept-Encoding");
  EXPECT_EQ(gunzip(small.body), plain.body);
  EXPECT_NE(small.headers.at("etag"), plain.headers.at("etag"));
}

TEST(WebPage, OfThePagesEveryFileTheyNameIsThereAndLasts) {
  if (!built()) GTEST_SKIP() << "skipped: the web pages are not built";
  const TestServer server;
  int files = 0;
  for (const char* path : {"/", "/runs"}) {
    const std::string page = server.get(path).body;
    for (size_t at = 0; (at = page.find("\"/assets/", at)) != page.npos;) {
      const std::string file = page.substr(at + 1, page.find('"', at + 1) - at - 1);
      at += file.size();
      const Answer answer = server.get(file);
      EXPECT_EQ(answer.status, 200) << file;
      EXPECT_NE(answer.headers.at("cache-control").find("immutable"), std::string::npos);
      ++files;
    }
  }
  EXPECT_GE(files, 4);
}

TEST(WebPage, IsNotSentAgainToWhoHasIt) {
  const TestServer server;
  const std::string tag = server.get("/").headers.at("etag");
  Client client = server.connect();
  // On one connection: a 304 that announced a body would leave the second request without answer.
  for (const std::string& known : {tag, "\"other\", W/" + tag, std::string("*")}) {
    client.send(request_text("GET", "/", "", {{"If-None-Match", known}}));
    const std::string head = client.read_until("\r\n\r\n");
    EXPECT_TRUE(head.starts_with("HTTP/1.1 304 Not Modified\r\n")) << head;
    EXPECT_NE(head.find("ETag: " + tag), head.npos);
    EXPECT_EQ(head.find("Content-Length"), head.npos);
  }
  EXPECT_EQ(server.get("/", {{"If-None-Match", "\"other\""}}).status, 200);
}

TEST(WebPage, AnswersHeadAndRefusesTheRest) {
  const TestServer server;
  Client client = server.connect();
  client.send(request_text("HEAD", "/", ""));
  const std::string head = client.read_until("\r\n\r\n");
  EXPECT_TRUE(head.starts_with("HTTP/1.1 200 ")) << head;
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));  // and no body
  const Answer post = server.post("/", json::object());
  EXPECT_EQ(post.status, 405);
  EXPECT_EQ(post.headers.at("allow"), "GET");
  for (const char* path : {"/index.html", "//", "/assets/", "/assets/../", "/%2e%2e/etc/passwd"}) {
    EXPECT_EQ(server.get(path).status, 404) << path;
  }
}

TEST(WebPage, NeedsNoKeyWhileAllElseDoes) {
  const TempFolder folder;
  serve::ServeOptions options = tiny_options();
  options.api_key_file = folder.write("keys", "a-key-of-twenty-letters\n");
  options.api.runs = folder.path();
  const TestServer server(std::move(options));
  EXPECT_EQ(server.get("/").status, 200);
  EXPECT_EQ(server.get("/v1/models").status, 401);
  EXPECT_EQ(server.get("/runs/data").status, 401);
  EXPECT_EQ(server.get("/runs/data", {{"Authorization", "Bearer a-key-of-twenty-letters"}}).status,
            200);
  EXPECT_EQ(server.post("/", json::object()).status, 401);
  // Another Host is refused the page, too: it would be the other site's.
  EXPECT_EQ(server.get("/", {{"Host", "evil.example"}}).status, 403);
}

}  // namespace
}  // namespace quern::test
