#include "core/file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "support/support.h"

namespace quern {
namespace {

using test::TempFolder;

TEST(File, ReadsAWholeFileWithinTheLimit) {
  const TempFolder folder;
  const auto path = folder.write("a.txt", "hello");
  EXPECT_EQ(read_file(path), "hello");
  test::expect_error([&] { read_file(path, 4); }, Kind::BadInput,
                     {"a.txt", "5 bytes", "at most 4"});
}

TEST(File, RefusesWhatIsNoRegularFile) {
  const TempFolder folder;
  test::expect_error([&] { read_file(folder.path()); }, Kind::BadInput, {"is a folder"});
  test::expect_error([&] { read_file(folder.path() / "none"); }, Kind::BadInput, {"No such file"});
  test::expect_error([] { read_file("/dev/null"); }, Kind::BadInput, {"is a device"});
  const auto fifo = folder.path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  test::expect_error([&] { MappedFile{fifo}; }, Kind::BadInput, {"is a FIFO"});
}

TEST(File, AtomicWriteShowsTheFileOnlyWhenItIsWhole) {
  const TempFolder folder;
  const auto path = folder.path() / "out.bin";
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  AtomicFile file(path);
  file.write("all of it");
  file.commit();
  EXPECT_EQ(read_file(path), "all of it");
}

TEST(File, AtomicFolderAppearsWholeOrNotAtAll) {
  const TempFolder folder;
  const auto path = folder.path() / "model";
  {
    AtomicFolder building(path);
    write_file(building.temporary() / "a", "1");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  {
    AtomicFolder building(path);
    write_file(building.temporary() / "a", "1");
    building.commit();
  }
  EXPECT_EQ(read_file(path / "a"), "1");
  test::expect_error([&] { AtomicFolder{path}; }, Kind::Misused, {"exists already"});
}

// A full device: /dev/full fails every write with ENOSPC, but only as a device; a file size limit
// gives the same on a real file.
TEST(File, AFullDiskLeavesNothingUnderTheFinalName) {
  const TempFolder folder;
  const auto path = folder.path() / "big.bin";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      AtomicFile file(path);
      file.write(std::string(5000, 'x'));
      file.commit();
    } catch (const Error& error) {
      ::_exit(error.exit_code());
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(Kind::NoResources));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(File, AFileThatShrinksWhileMappedEndsWithOneClearLine) {
  const TempFolder folder;
  const auto path = folder.write("model.bin", std::string(1 << 16, 'x'));
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe_ends[1], STDERR_FILENO);
    install_sigbus_handler();
    const MappedFile file(path);
    if (::truncate(path.c_str(), 0) != 0) ::_exit(99);
    const volatile auto* bytes = reinterpret_cast<const volatile char*>(file.data());
    ::_exit(bytes[5000] == 'x' ? 0 : 1);
  }
  ::close(pipe_ends[1]);
  char message[512] = {};
  [[maybe_unused]] const auto got = ::read(pipe_ends[0], message, sizeof(message) - 1);
  ::close(pipe_ends[0]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 3);
  EXPECT_NE(std::string(message).find("model.bin: the file shrank"), std::string::npos) << message;
}

TEST(File, NamesInsideAFolderStayInside) {
  EXPECT_EQ(join_inside("/m", "a/b.bin", "index"), fs::path("/m/a/b.bin"));
  for (const char* name : {"", "/etc/passwd", "../x", "a/../../x"}) {
    test::expect_error([&] { join_inside("/m", name, "index"); }, Kind::BadInput,
                       {"index", "inside"});
  }
}

TEST(File, Sha256OfAKnownText) {
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace quern
