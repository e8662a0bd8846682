// Training runs over HTTP: what is in the files comes out, and nothing outside the folder.
#include "serve/runs.h"

#include <sys/stat.h>

#include <fstream>

#include "core/error.h"
#include "serve/test_server.h"

namespace quern::test {
namespace {

constexpr const char* kHeader =
    "step,tokens,seconds,loss,lr,grad_norm,tokens_per_s,share_of_peak\n";

serve::HttpRequest plain() { return {}; }

json one(const serve::Runs& runs, const std::string& name) {
  const serve::HttpResponse response = runs.one(name, plain());
  EXPECT_EQ(response.status, 200) << response.body;
  return json::parse(response.body);
}

TEST(Runs, GivesTheCurvesOfARun) {
  const TempFolder folder;
  folder.write("mini/metrics.csv", std::string(kHeader) +
                                       "1,64,0.5,6.25,1e-4,1.5,640,0.5\n"
                                       "2,128,1,nan,2e-4,inf,640,0.5\n"
                                       "3,192,1.5,5.75,3e");  // being written
  folder.write("mini/validation.csv",
               "step,tokens,source,loss,bits_per_byte\n"
               "1,64,stories,5.5,2\n1,64,books,6.5,2.25\n2,128,stories,5.25,1.75\n");
  const serve::Runs runs(folder.path());
  const json run = one(runs, "mini");
  EXPECT_EQ(run["metrics"]["step"], json({1, 2}));
  EXPECT_EQ(run["metrics"]["loss"], json({6.25, nullptr}));
  EXPECT_EQ(run["metrics"]["lr"], json({1e-4, 2e-4}));
  EXPECT_EQ(run["metrics"]["grad_norm"], json({1.5, nullptr}));
  EXPECT_EQ(run["validation"].size(), 2u);
  EXPECT_EQ(run["validation"][0]["source"], "stories");
  EXPECT_EQ(run["validation"][0]["loss"], json({5.5, 5.25}));
  EXPECT_EQ(run["validation"][1]["tokens"], json({64}));
  EXPECT_EQ(run["skipped"], 0);
}

TEST(Runs, CountsTheLinesItCannotRead) {
  const TempFolder folder;
  folder.write("a/metrics.csv", "step,loss\n1,2\nx,3\n2,3,4\n\n3,1\n");
  const json run = one(serve::Runs(folder.path()), "a");
  EXPECT_EQ(run["metrics"]["step"], json({1, 3}));
  EXPECT_EQ(run["skipped"], 3);
}

TEST(Runs, MakesPointsOfALongRunTheMeansOfNeighbours) {
  const TempFolder folder;
  std::string text = "step,loss\n";
  for (int step = 1; step <= 2401; ++step) {
    text += std::to_string(step) + "," + std::to_string(step % 2 == 0 ? 3 : 1) + "\n";
  }
  folder.write("long/metrics.csv", text);
  const json metrics = one(serve::Runs(folder.path()), "long")["metrics"];
  // 2401 rows in at most 800 points: four at a time, and one that is left.
  EXPECT_EQ(metrics["step"].size(), 601u);
  EXPECT_EQ(metrics["step"][0], 4);
  EXPECT_EQ(metrics["step"][600], 2401);
  EXPECT_EQ(metrics["loss"][0], 2);
  EXPECT_EQ(metrics["loss"][600], 1);
}

TEST(Runs, ListsFoldersWithMetricsNewestFirst) {
  const TempFolder folder;
  for (const char* name : {"old", "new", ".hidden"}) {
    folder.write(std::string(name) + "/metrics.csv", kHeader);
  }
  folder.write("empty/other.csv", "");
  folder.write("file", "");
  fs::last_write_time(folder.path() / "old/metrics.csv",
                      fs::file_time_type::clock::now() - std::chrono::hours(1));
  const json list = json::parse(serve::Runs(folder.path()).list().body);
  ASSERT_EQ(list["runs"].size(), 2u);
  EXPECT_EQ(list["runs"][0]["name"], "new");
  EXPECT_EQ(list["runs"][1]["name"], "old");
  EXPECT_NEAR(list["now"].get<double>() - list["runs"][1]["updated"].get<double>(), 3600, 60);
}

TEST(Runs, OpensNothingOutsideItsFolder) {
  const TempFolder outer;
  outer.write("secret/metrics.csv", std::string(kHeader) + "1,1,1,1,1,1,1,1\n");
  outer.write("runs/real/metrics.csv", kHeader);
  outer.write("runs/half/other", "");
  const fs::path inner = outer.path() / "runs";
  fs::create_directory_symlink(outer.path() / "secret", inner / "linked");
  fs::create_symlink(outer.path() / "secret/metrics.csv", inner / "half/metrics.csv");
  ASSERT_EQ(::mkfifo((inner / "real/validation.csv").c_str(), 0600), 0);  // would hang a reader
  const serve::Runs runs(inner);
  for (const std::string name : {"linked", "half", "..", ".", "", "../secret", "real/../../secret",
                                 "/etc", "real/", "\xff", "a\nb", "..\\secret"}) {
    EXPECT_EQ(runs.one(name, plain()).status, 404) << name;
  }
  EXPECT_EQ(runs.one(std::string("real\0x", 6), plain()).status, 404);
  EXPECT_EQ(one(runs, "real")["validation"], json::array());
  const json list = json::parse(runs.list().body);
  ASSERT_EQ(list["runs"].size(), 1u);
  EXPECT_EQ(list["runs"][0]["name"], "real");
}

TEST(Runs, IsNotReadAgainWhileItStands) {
  const TempFolder folder;
  folder.write("a/metrics.csv", std::string(kHeader) + "1,1,1,1,1,1,1,1\n");
  const serve::Runs runs(folder.path());
  const auto tag_of = [](const serve::HttpResponse& response) {
    for (const auto& [name, value] : response.headers) {
      if (name == "ETag") return value;
    }
    return std::string();
  };
  serve::HttpRequest request;
  request.headers = {{"if-none-match", tag_of(runs.one("a", request))}};
  EXPECT_EQ(runs.one("a", request).status, 304);
  std::ofstream(folder.path() / "a/metrics.csv", std::ios::app) << "2,2,2,2,2,2,2,2\n";
  EXPECT_EQ(runs.one("a", request).status, 200);
}

TEST(Runs, NeedAFolder) {
  const TempFolder folder;
  EXPECT_THROW(serve::Runs(folder.path() / "none"), Error);
  EXPECT_THROW(serve::Runs(folder.write("file", "")), Error);
}

TEST(Runs, ComeOverHttpOnlyWhereTheyAreAskedFor) {
  const TempFolder folder;
  folder.write("a b/metrics.csv", std::string(kHeader) + "1,1,1,1,1,1,1,1\n");
  {
    serve::ServeOptions options = tiny_options();
    options.api.runs = folder.path();
    const TestServer server(std::move(options));
    EXPECT_EQ(server.get("/runs/data").parsed()["runs"][0]["name"], "a b");
    EXPECT_EQ(server.get("/runs/data/a%20b").parsed()["metrics"]["step"], json({1}));
    for (const char* path :
         {"/runs/data/..%2f..", "/runs/data/%00", "/runs/data/%zz", "/runs/data/"}) {
      EXPECT_EQ(server.get(path).status, 404) << path;
    }
    EXPECT_EQ(server.post("/runs/data/a", json::object()).status, 405);
  }
  const TestServer without;
  EXPECT_EQ(without.get("/runs/data").status, 404);
  EXPECT_EQ(without.get("/runs/data/a").status, 404);
}

}  // namespace
}  // namespace quern::test
