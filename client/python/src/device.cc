// SPDX-License-Identifier: Apache-2.0
#include "client/python/src/device.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "absl/strings/str_cat.h"
#include "client/gpu/cuda_runtime.h"
#include "client/gpu/host_runtime.h"
#include "client/python/src/batch.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::python {
namespace {

// After this a thread that waits for a batch while all places are held is taken to be the one that holds them.
constexpr absl::Duration kPatience = absl::Seconds(3);

struct HeldBatch {
  std::shared_ptr<DeviceTarget> target;
  gpu::DeviceBatch batch;
};

class PyDeviceBatch {
 public:
  explicit PyDeviceBatch(HeldBatch held) : held_(std::move(held)) {}
  PyDeviceBatch(PyDeviceBatch&&) = default;
  ~PyDeviceBatch() {
    if (!held_.Here()) return;
    const nb::gil_scoped_release release;  // the last batch of a closed loader waits for the device
    const HeldBatch gone = std::move(held_.get());
  }
  const gpu::DeviceBatch& get() const { return held_.get().batch; }
  const DeviceTarget& target() const { return *held_.get().target; }

 private:
  OfThisProcess<HeldBatch> held_;
};

}  // namespace

PyDeviceLoader::~PyDeviceLoader() {
  if (reader_.Here()) Close();
}

nb::object PyDeviceLoader::Next(double timeout, uintptr_t stream) {
  DeviceReader& reader = get();
  const Busy busy(busy_);
  absl::Status status;
  {
    const InFlight call;
    const nb::gil_scoped_release release;
    status = reader.GoOn();
  }
  Check(status);
  const v1::Position before = reader.position();
  const gpu::Queue own = reader.target()->queue.get();
  const gpu::Queue queue = own != nullptr ? own : reinterpret_cast<gpu::Queue>(stream);
  using Result = std::optional<gpu::DeviceBatch>;
  absl::Time free_at = absl::Now();  // when a place was last seen that the caller did not hold
  absl::StatusOr<Result> next = InSlices<Result>(timeout, [&](absl::Duration slice) -> absl::StatusOr<Result> {
    absl::StatusOr<Result> result = reader.Next(queue, slice);
    const gpu::AssemblerReport report = reader.report();
    if (report.held < report.depth) free_at = absl::Now();
    if (timeout > 0 || !absl::IsDeadlineExceeded(result.status()) || absl::Now() - free_at < kPatience) return result;
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", report.depth, " places on the device are held by batches and tensors of them: let go of ",
                     "them, clone what must live longer, or give loader.to a larger depth"));
  });
  if (absl::IsDeadlineExceeded(next.status())) throw StatusError(next.status());
  try {
    Check(next.status());
    if (!next->has_value()) return nb::none();
    if (own != nullptr) {
      Value(InSlices<bool>(timeout, [&](absl::Duration slice) -> absl::StatusOr<bool> {
        STOKER_RETURN_IF_ERROR((*next)->Wait(slice));
        return true;
      }));
    }
    return nb::cast(PyDeviceBatch({reader.target(), **std::move(next)}));
  } catch (...) {
    reader.StopAt(before);  // it was fetched, and not handed out
    throw;
  }
}

void PyDeviceLoader::Move(const std::function<absl::Status(Loader&)>& how) {
  DeviceReader& reader = get();
  const Busy busy(busy_);
  absl::Status status;
  {
    const InFlight call;
    const nb::gil_scoped_release release;
    status = reader.Move(how);
  }
  Check(status);
}

void PyDeviceLoader::SetEpoch(uint64_t epoch) {
  const v1::Position now = get().position();
  if (now.epoch() == epoch && now.step() == 0) return;
  Move([epoch](Loader& loader) { return loader.SetEpoch(epoch); });
}

void PyDeviceLoader::LoadState(const std::string& json) {
  Move([&json](Loader& loader) { return loader.LoadState(json); });
}

nb::str PyDeviceLoader::Notice() const {
  const std::string of_loader = get().loader().notice(), of_device = get().report().notice;
  return Text(absl::StrCat(of_loader, of_loader.empty() || of_device.empty() ? "" : "; ", of_device));
}

nb::dict PyDeviceLoader::Report() const {
  const gpu::AssemblerReport report = get().report();
  const gpu::DeviceInfo& info = get().target()->runtime->info();
  nb::dict dict;
  dict["name"] = Text(info.name);
  dict["on_device"] = info.on_device;
  dict["depth"] = report.depth;
  dict["device_bytes"] = report.device_bytes;
  dict["registered_bytes"] = report.registered_bytes;
  dict["pinned_bytes"] = report.pinned_bytes;
  dict["batches"] = report.batches;
  dict["borrowed_batches"] = report.borrowed_batches;
  dict["uploaded_bytes"] = report.uploaded_bytes;
  dict["expanded_bytes"] = report.expanded_bytes;
  return dict;
}

bool PyDeviceLoader::Pause() {
  if (!reader_.Here() || busy_->test_and_set()) return false;
  {
    const nb::gil_scoped_release release;
    get().Drop();
  }
  const bool paused = loader_.Pause();
  busy_->clear();
  return paused;
}

void PyDeviceLoader::Close() {
  loader_.Close();
  const InFlight call;
  const nb::gil_scoped_release release;
  get().Drop();
}

namespace {

absl::StatusOr<std::shared_ptr<DeviceTarget>> OpenTarget(bool cuda, int ordinal) {
  if (cuda) {
    STOKER_ASSIGN_OR_RETURN(std::shared_ptr<gpu::DeviceRuntime> runtime, gpu::OpenCudaRuntime(ordinal));
    return std::make_shared<DeviceTarget>(
        DeviceTarget{std::move(runtime), DeviceTarget::kCuda, ordinal, gpu::OwnedQueue()});
  }
  std::shared_ptr<gpu::DeviceRuntime> runtime = gpu::HostRuntime::Create();
  STOKER_ASSIGN_OR_RETURN(gpu::OwnedQueue queue, gpu::OwnQueue(*runtime));
  return std::make_shared<DeviceTarget>(DeviceTarget{std::move(runtime), DeviceTarget::kCpu, 0, std::move(queue)});
}

void CheckCuda(int ordinal) {
  Check(Interruptible<absl::Status>([ordinal] { return gpu::OpenCudaRuntime(ordinal).status(); }));
}

// On success it has taken `loader`.
PyDeviceLoader Open(PyLoader& loader, bool cuda, int ordinal, int depth, uint64_t memory_limit,
                    const std::string& expand, bool share, const std::vector<std::pair<double, double>>& channel_ranges,
                    double triplet_cutoff) {
  gpu::AssemblerOptions options;
  options.depth = depth;
  options.min_depth = 2;
  options.device_bytes_limit = memory_limit;
  options.share = share;
  FromJson(expand, &options.expand.recipe);
  for (const auto& [low, high] : channel_ranges) {
    v1::GafRecipe::Range& range = options.expand.channel_ranges.emplace_back();
    range.set_low(low);
    range.set_high(high);
  }
  if (triplet_cutoff > 0) options.expand.triplet_cutoff = triplet_cutoff;
  const std::shared_ptr<Loader> shared = loader.shared();
  using Result = absl::StatusOr<std::unique_ptr<DeviceReader>>;
  std::unique_ptr<DeviceReader> reader = Value(Interruptible<Result>([cuda, ordinal, shared, options]() -> Result {
    STOKER_ASSIGN_OR_RETURN(std::shared_ptr<DeviceTarget> target, OpenTarget(cuda, ordinal));
    return DeviceReader::Open(std::move(target), shared, options);
  }));
  return PyDeviceLoader(std::move(loader), std::move(reader));
}

// ---- batches

gpu::DeviceTensor Find(const PyDeviceBatch& batch, const char* name) { return Value(batch.get().Get(name)); }

nb::tuple Names(const PyDeviceBatch& batch) {
  nb::list names;
  for (const gpu::DeviceTensor& tensor : batch.get().tensors()) names.append(Text(tensor.name));
  return nb::tuple(names);
}

nb::ndarray<nb::array_api> DLPack(nb::handle self, const char* name) {
  const PyDeviceBatch& batch = nb::cast<const PyDeviceBatch&>(self);
  const gpu::DeviceTensor tensor = Find(batch, name);
  const std::vector<size_t> shape(tensor.shape.begin(), tensor.shape.end());
  return nb::ndarray<nb::array_api>(tensor.data, shape.size(), shape.data(), self, nullptr, TypeOf(tensor.dtype),
                                    batch.target().type, batch.target().ordinal);
}

}  // namespace

void BindDevice(nb::module_& module) {
  nb::class_<PyDeviceBatch>(module, "DeviceBatch")
      .def_prop_ro("epoch", [](const PyDeviceBatch& batch) { return batch.get().epoch(); })
      .def_prop_ro("step", [](const PyDeviceBatch& batch) { return batch.get().step(); })
      .def_prop_ro("samples", [](const PyDeviceBatch& batch) { return batch.get().samples(); })
      .def_prop_ro("uploaded_bytes", [](const PyDeviceBatch& batch) { return batch.get().uploaded_bytes(); })
      .def_prop_ro("expanded_bytes", [](const PyDeviceBatch& batch) { return batch.get().expanded_bytes(); })
      .def_prop_ro(
          "device",
          [](const PyDeviceBatch& batch) { return std::pair<int, int>(batch.target().type, batch.target().ordinal); })
      .def("names", Names)
      .def("dtype", [](const PyDeviceBatch& batch,
                       const char* name) { return std::string(tensor::DTypeName(Find(batch, name).dtype)); })
      .def("shape",
           [](const PyDeviceBatch& batch, const char* name) { return nb::tuple(nb::cast(Find(batch, name).shape)); })
      .def("use_on", [](const PyDeviceBatch& batch,
                        uintptr_t stream) { Check(batch.get().UseOn(reinterpret_cast<gpu::Queue>(stream))); })
      .def("dlpack", DLPack);
  nb::class_<PyDeviceLoader>(module, "DeviceLoader")
      .def("next", &PyDeviceLoader::Next)
      .def("info", [](const PyDeviceLoader& loader) { return Text(ToJson(loader.get().loader().info())); })
      .def_prop_ro("steps_per_epoch", [](const PyDeviceLoader& loader) { return loader.get().steps_per_epoch(); })
      .def_prop_ro("position",
                   [](const PyDeviceLoader& loader) {
                     const v1::Position position = loader.get().position();
                     return std::pair<uint64_t, uint64_t>(position.epoch(), position.step());
                   })
      .def("set_epoch", &PyDeviceLoader::SetEpoch)
      .def("save_state",
           [](const PyDeviceLoader& loader) { return Text(loader.get().loader().SaveState(loader.get().position())); })
      .def("load_state", &PyDeviceLoader::LoadState)
      .def_prop_ro("transport", [](const PyDeviceLoader& loader) { return Text(loader.get().loader().transport()); })
      .def_prop_ro("notice", &PyDeviceLoader::Notice)
      .def_prop_ro("report", &PyDeviceLoader::Report)
      .def("pause", &PyDeviceLoader::Pause)
      .def("close", &PyDeviceLoader::Close);
  module.def("check_cuda", CheckCuda);
  module.def("open_device", Open);
}

}  // namespace stoker::python
