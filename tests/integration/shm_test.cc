// SPDX-License-Identifier: Apache-2.0
// Too little shared memory, at the start or later: a clear error or a smaller arena, never SIGBUS. And large pages,
// where the mount has them. Each test is in a mount namespace with a /dev/shm of its own, in a child process.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/integration/fixture.h"
#include "tests/integration/reader.h"
#include "tests/support/shm_namespace.h"

namespace stoker {
namespace {

using testing::Digests;
using testing::DigestsIn;
using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeSamples;
using testing::Program;
using testing::ProgramResult;
using testing::RunningProgram;
using testing::SegmentsOf;
using testing::TempDir;

constexpr uint64_t kMiB = 1 << 20;
constexpr uid_t kNobody = 65534;

// Everything that is in the child.
class World {
 public:
  World() {
    std::filesystem::create_directories(dir_.File("data"));
    dir_.Write("data/small.ts", ToTs(MakeSamples(96, 1, 64)));
    std::filesystem::permissions(dir_.path(), std::filesystem::perms::all);
  }
  ~World() {
    if (daemon_) Stop();
    EXPECT_THAT(Files(), IsEmpty());
  }

  void Run(const std::vector<std::string>& more, uid_t uid = 0) {
    std::vector<std::string> command = {Program("stokerd"), "--socket",         dir_.File("sock"),
                                        "--cache-dir",      dir_.File("cache"), "--root",
                                        dir_.File("data"),  "--workers",        "2",
                                        "--log-level",      "warning"};
    command.insert(command.end(), more.begin(), more.end());
    daemon_ = std::make_unique<RunningProgram>(command, RunningProgram::Options{.uid = uid, .environment = {}});
  }
  // Of a daemon that must not start: the one line that it says.
  std::string Refused(int exit_code) {
    const ProgramResult result = daemon_->Wait();
    daemon_.reset();
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_THAT(Files(), IsEmpty());
    return result.err;
  }
  // Until it serves.
  void Connect() {
    ASSERT_TRUE(Eventually([&] {
      absl::StatusOr<Client> client = Client::Connect({.address = dir_.File("sock"), .timeout = absl::Seconds(5)});
      if (!client.ok() || !client->Health().value_or(false)) return false;
      client_ = std::make_unique<Client>(*std::move(client));
      return true;
    })) << (daemon_->Kill(SIGKILL), daemon_->Wait().err);
  }
  void Stop() {
    client_.reset();
    const absl::Time asked = absl::Now();
    daemon_->Kill(SIGTERM);
    const ProgramResult result = daemon_->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_LT(absl::Now() - asked, absl::Seconds(8)) << "nobody reads any more: there is nothing to wait for";
    daemon_.reset();
  }
  v1::StatusReply Status() { return client_->GetStatus().value_or(v1::StatusReply()); }
  void Ingest() {
    v1::IngestRequest request;
    request.set_name("small");
    request.add_source(dir_.File("data/small.ts"));
    EXPECT_OK(client_->Ingest(request));
  }
  std::unique_ptr<RunningProgram> StartReader(const std::vector<std::string>& options) {
    return std::make_unique<RunningProgram>(testing::ReaderCommand(dir_.File("sock"), "small", options));
  }
  // The 12 batches of an epoch, by this transport.
  Digests ReadAll(absl::string_view transport) {
    const ProgramResult result = StartReader({"batch=8"})->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.out;
    EXPECT_THAT(result.out, HasSubstr(absl::StrCat("done ", transport)));
    EXPECT_EQ(DigestsIn(result.out).size(), 12u);
    return DigestsIn(result.out);
  }

  Client& client() { return *client_; }
  RunningProgram& daemon() { return *daemon_; }
  const TempDir& dir() const { return dir_; }
  static std::vector<std::string> Files() {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", error)) {
      if (absl::StartsWith(entry.path().filename().string(), "stoker.")) names.push_back(entry.path().filename());
    }
    return names;
  }

 private:
  TempDir dir_;
  std::unique_ptr<RunningProgram> daemon_;
  std::unique_ptr<Client> client_;
};

// Takes `bytes` of /dev/shm, or all that is left.
void Fill(uint64_t bytes) {
  const UniqueFd fd(::open("/dev/shm/of_others", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_TRUE(fd.valid());
  const std::string block(64 << 10, 'x');
  for (uint64_t done = 0; done < bytes; done += block.size()) {
    if (::write(fd.get(), block.data(), block.size()) != static_cast<ssize_t>(block.size())) return;
  }
}

// Why this kernel has no large pages for a tmpfs; empty when it has.
std::string NoLargePagesReason() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  std::string modes;
  if (!std::getline(file, modes)) return "this kernel has no transparent large pages for shared memory";
  return absl::StrContains(modes, "[deny]") ? "shmem_enabled is deny on this machine" : "";
}

// Bytes of the segments that the process has mapped by large pages.
uint64_t LargePageBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/smaps"));
  uint64_t bytes = 0;
  bool is_segment = false;
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    if (!absl::EndsWith(words[0], ":")) is_segment = absl::StrContains(line, "/stoker.");
    uint64_t kib = 0;
    if (is_segment && words[0] == "ShmemPmdMapped:" && absl::SimpleAtoi(words[1], &kib)) bytes += kib << 10;
  }
  return bytes;
}

// Those of `bytes` of a file that is reserved and mapped as segments are: what there is to be had just now.
uint64_t LargePageBytesOfAFile(uint64_t bytes) {
  const std::string path = "/dev/shm/stoker.probe";
  const UniqueFd fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const bool reserved = fd.valid() && ::fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes)) == 0;
  void* const data =
      reserved ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0) : MAP_FAILED;
  const uint64_t large = data == MAP_FAILED ? 0 : LargePageBytes(::getpid());
  if (data != MAP_FAILED) ::munmap(data, bytes);
  ::unlink(path.c_str());
  return large;
}

class ShmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = testing::ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  }
  static void InNamespace(uint64_t bytes, const std::function<void()>& body) {
    const testing::ChildResult result = testing::RunInShmNamespace(bytes, [&](int) { body(); });
    EXPECT_EQ(result.exit_code, 0) << "what failed is above; signal " << result.signal;
  }
};

// ---- at the start ----

TEST_F(ShmTest, MountTooSmall_ArenaOfASize_IsRefusedWithFigures) {
  InNamespace(8 * kMiB, [] {
    World world;
    world.Run({"--arena-bytes", "64MiB"});
    const std::string said = world.Refused(5);
    EXPECT_THAT(said, HasSubstr("64.0 MiB"));
    EXPECT_THAT(said, HasSubstr("8.00 MiB"));
    EXPECT_THAT(said, HasSubstr("--arena-bytes"));
  });
}

TEST_F(ShmTest, MountFull_ArenaOfASize_IsRefused) {
  InNamespace(32 * kMiB, [] {
    Fill(64 * kMiB);
    World world;
    world.Run({"--arena-bytes", "16MiB"});
    EXPECT_THAT(world.Refused(5), HasSubstr("16.0 MiB"));
  });
}

TEST_F(ShmTest, MountHalfFull_AutomaticArena_IsSmallerAndMapped) {
  InNamespace(96 * kMiB, [] {
    Fill(48 * kMiB);
    World world;
    world.Run({"--arena-bytes", "auto"});
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    const v1::StatusReply status = world.Status();
    EXPECT_EQ(status.arena().mode(), "shm");
    EXPECT_LE(status.arena().capacity_bytes(), 24 * kMiB);
    EXPECT_GE(status.arena().capacity_bytes(), 16 * kMiB);
    world.Ingest();
    world.ReadAll("shm");
  });
}

TEST_F(ShmTest, MountTooSmall_AutomaticArena_ServesInlineAndSaysSo) {
  InNamespace(8 * kMiB, [] {
    World world;
    world.Run({"--arena-bytes", "auto"});
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    const v1::StatusReply status = world.Status();
    EXPECT_EQ(status.arena().mode(), "inline");
    ASSERT_EQ(status.notices_size(), 1);
    EXPECT_THAT(status.notices(0), HasSubstr("/dev/shm"));
    world.Ingest();
    const Digests sent = world.ReadAll("inline");
    EXPECT_THAT(World::Files(), IsEmpty());
    const ProgramResult mapped = world.StartReader({"batch=8", "transport=shm"})->Wait();
    EXPECT_EQ(mapped.exit_code, 1);
    EXPECT_THAT(mapped.out, HasSubstr("error "));
  });
}

TEST_F(ShmTest, MountReadOnly_ArenaOfASizeIsRefused_AutomaticServesInline) {
  InNamespace(64 * kMiB, [] {
    ASSERT_EQ(::mount(nullptr, "/dev/shm", nullptr, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr), 0);
    World world;
    world.Run({"--arena-bytes", "16MiB"});
    EXPECT_THAT(world.Refused(6), HasSubstr("/dev/shm"));
    world.Run({"--arena-bytes", "auto"});
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    EXPECT_EQ(world.Status().arena().mode(), "inline");
    world.Ingest();
    world.ReadAll("inline");
  });
}

TEST_F(ShmTest, FolderMissing_ArenaOfASizeIsRefused_AutomaticServesInline) {
  InNamespace(64 * kMiB, [] {
    World world;
    world.Run({"--arena-bytes", "16MiB", "--shm-dir", "/dev/shm/none"});
    EXPECT_THAT(world.Refused(6), HasSubstr("/dev/shm/none"));
    world.Run({"--arena-bytes", "auto", "--shm-dir", "/dev/shm/none"});
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    ASSERT_EQ(world.Status().notices_size(), 1);
    EXPECT_THAT(world.Status().notices(0), HasSubstr("/dev/shm/none"));
    world.Ingest();
    world.ReadAll("inline");
  });
}

TEST_F(ShmTest, FolderForbidden_ArenaOfASizeIsRefused_AutomaticServesInline) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody who may not write to /dev/shm";
  InNamespace(64 * kMiB, [] {
    ASSERT_EQ(::chmod("/dev/shm", 0700), 0);
    World world;
    world.Run({"--arena-bytes", "16MiB"}, kNobody);
    const std::string said = world.Refused(6);
    EXPECT_THAT(said, HasSubstr("/dev/shm"));
    EXPECT_THAT(said, HasSubstr("ermission"));
    world.Run({"--arena-bytes", "auto"}, kNobody);
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    EXPECT_EQ(world.Status().arena().mode(), "inline");
    world.Ingest();
    world.ReadAll("inline");
  });
}

TEST_F(ShmTest, MountWithLargePages_DaemonMapsTheArenaByThem) {
  if (const std::string reason = NoLargePagesReason(); !reason.empty()) GTEST_SKIP() << reason;
  constexpr uint64_t kArena = 32 * kMiB;
  const auto mount = [] {
    ASSERT_EQ(::mount(nullptr, "/dev/shm", nullptr, MS_REMOUNT | MS_NOSUID | MS_NODEV, "size=128M,huge=within_size"),
              0);
  };
  const testing::ChildResult probe = testing::RunInShmNamespace(128 * kMiB, [&](int out) {
    mount();
    const std::string bytes = absl::StrCat(LargePageBytesOfAFile(kArena));
    ASSERT_EQ(::write(out, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  });
  ASSERT_EQ(probe.exit_code, 0);
  if (probe.output == "0") GTEST_SKIP() << "this machine's memory is too fragmented for a large page";
  InNamespace(128 * kMiB, [&] {
    mount();
    const uint64_t possible = LargePageBytesOfAFile(kArena);
    World world;
    world.Run({"--arena-bytes", "32MiB"});
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    EXPECT_GE(LargePageBytes(world.daemon().pid()), possible / 2) << possible;
    world.Ingest();
    world.ReadAll("shm");
  });
}

// ---- later ----

TEST_F(ShmTest, MountFilledByOthersLater_ReadingGoesOn) {
  InNamespace(32 * kMiB, [] {
    World world;
    world.Run({"--arena-bytes", "16MiB"});
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    world.Ingest();
    const auto reader = world.StartReader({"batch=8", "epochs=4", "hold=1", "transport=shm"});
    ASSERT_TRUE(reader->WaitForOutput("holding"));
    ASSERT_NO_FATAL_FAILURE(Fill(64 * kMiB));
    reader->Say("go on");
    const ProgramResult result = reader->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.out;
    EXPECT_EQ(DigestsIn(result.out).size(), 48u);
    EXPECT_EQ(world.Status().shm().free_bytes(), 0u);
    world.ReadAll("shm");
  });
}

TEST_F(ShmTest, SegmentsRemovedWhileTheMountIsFull_AreReplacedOnceThereIsRoom) {
  InNamespace(32 * kMiB, [] {
    World world;
    world.Run({"--arena-bytes", "16MiB"});
    ASSERT_NO_FATAL_FAILURE(world.Connect());
    world.Ingest();
    const Digests expected = world.ReadAll("shm");
    const auto reader = world.StartReader({"batch=8", "epochs=2", "hold=1", "transport=shm"});
    ASSERT_TRUE(reader->WaitForOutput("holding"));
    Fill(64 * kMiB);
    for (const std::string& name : World::Files()) ASSERT_EQ(::unlink(("/dev/shm/" + name).c_str()), 0);
    ASSERT_TRUE(world.daemon().WaitForError("removed and cannot be replaced"));
    ASSERT_EQ(::unlink("/dev/shm/of_others"), 0);
    ASSERT_TRUE(Eventually([] { return !World::Files().empty(); }));
    reader->Say("go on");
    const ProgramResult result = reader->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.out;
    EXPECT_EQ(DigestsIn(result.out).size(), 24u);
    EXPECT_EQ(world.ReadAll("shm"), expected);
  });
}

}  // namespace
}  // namespace stoker
