// SPDX-License-Identifier: Apache-2.0
#include "server/workers/worker_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "stoker/v1/worker.pb.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::workers {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kWorker[] = STOKER_WORKER_PROGRAM;
constexpr int kPatienceMilliseconds = 60000;  // for what must happen

// What comes next from the worker; Unavailable when it is gone.
absl::StatusOr<v1::FromWorker> Next(WorkerProcess* process) {
  pollfd ready = {process->channel().fd(), POLLIN, 0};
  if (::poll(&ready, 1, kPatienceMilliseconds) != 1) return absl::DeadlineExceededError("nothing comes");
  auto received = process->channel().Receive();
  if (!received.ok()) return received.status();
  v1::FromWorker message;
  EXPECT_TRUE(message.ParseFromString((*received)->bytes));
  return message;
}

std::unique_ptr<WorkerProcess> StartReady(const std::string& program) {
  auto process = WorkerProcess::Start(program, 0);
  EXPECT_OK(process);
  const auto message = Next(process->get());
  EXPECT_OK(message);
  EXPECT_TRUE(message->has_ready());
  return *std::move(process);
}

// Signals of `kind` (SigBlk, SigIgn) of a process, as a mask.
uint64_t SignalMask(pid_t pid, const std::string& kind) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (absl::StartsWith(line, kind + ":")) return std::stoull(line.substr(kind.size() + 1), nullptr, 16);
  }
  ADD_FAILURE() << kind << " is not in the status of process " << pid;
  return 0;
}

TEST(WorkerProcess, ProgramThatIsNotThere_IsNamed) {
  EXPECT_THAT(WorkerProcess::Start("/nowhere/stoker-worker", 0),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/stoker-worker")));
}

TEST(WorkerProcess, Kill_EndsItAndSaysHow) {
  const auto process = StartReady(kWorker);
  const pid_t pid = process->pid();
  EXPECT_NE(pid, ::getpid());
  EXPECT_EQ(::kill(pid, 0), 0);
  EXPECT_EQ(process->Kill(), "killed by signal 9");
  EXPECT_EQ(::kill(pid, 0), -1);  // reaped, not a zombie
  EXPECT_EQ(process->Kill(), "gone");
}

TEST(WorkerProcess, OneThatEndedByItself_KeepsItsExitStatus) {
  ASSERT_OK_AND_ASSIGN(const auto process, WorkerProcess::Start("/bin/false", 0));
  EXPECT_THAT(Next(process.get()), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(process->Kill(), "exit status 1");
}

TEST(WorkerProcess, Destructor_LeavesNoProcess) {
  pid_t pid = 0;
  {
    const auto process = StartReady(kWorker);
    pid = process->pid();
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(WorkerProcess, ClosingTheSocket_IsItsEndToo) {
  auto process = StartReady(kWorker);
  const pid_t pid = process->pid();
  ASSERT_EQ(::shutdown(process->channel().fd(), SHUT_RDWR), 0);
  // Exited, but not reaped: a zombie.
  siginfo_t info = {};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(process->Kill(), "exit status 0");
}

TEST(WorkerProcess, Process_HasItsSocketAndNoOtherDescriptorOfOurs) {
  const testing::TempDir dir;
  const std::string ours = dir.Write("ours", "x");
  const UniqueFd file(::open(ours.c_str(), O_RDONLY | O_CLOEXEC));
  const auto first = StartReady(kWorker);
  const auto second = StartReady(kWorker);
  int sockets = 0;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", second->pid(), "/fd"))) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    EXPECT_NE(target, ours);
    const int number = std::stoi(entry.path().filename());
    if (absl::StartsWith(target, "socket:") && number >= 3) ++sockets;
  }
  EXPECT_EQ(sockets, 1);  // descriptor 3, and not the first worker's
}

TEST(WorkerProcess, Process_BlocksNoSignalThatWeBlock) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &blocked, &before), 0);
  const auto process = StartReady(kWorker);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(SignalMask(process->pid(), "SigBlk"), 0u);
}

TEST(WorkerProcess, Process_DoesNotEndByASignalToTheWholeTerminal) {
  const auto process = StartReady(kWorker);
  EXPECT_EQ(::kill(process->pid(), SIGINT), 0);
  EXPECT_EQ(::kill(process->pid(), SIGTERM), 0);
  v1::ToWorker question;
  question.mutable_make_part()->set_part(5);
  ASSERT_OK(process->channel().Send(question));
  ASSERT_OK_AND_ASSIGN(const v1::FromWorker answer, Next(process.get()));
  EXPECT_EQ(answer.part_done().part(), 5u);
}

TEST(WorkerProcess, ThreadThatStartedIt_TakesItAlong) {
  std::unique_ptr<WorkerProcess> process;
  std::thread([&] { process = StartReady(kWorker); }).join();
  EXPECT_THAT(Next(process.get()), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(process->Kill(), "killed by signal 9");
}

TEST(WorkerProcess, WithoutAProgram_IsAThread) {
  const auto process = StartReady("");
  EXPECT_EQ(process->pid(), ::getpid());
  EXPECT_EQ(process->Kill(), "stopped");
  EXPECT_EQ(process->Kill(), "gone");
}

}  // namespace
}  // namespace stoker::workers
