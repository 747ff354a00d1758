// Runs a .pte with ExecuTorch's own runtime, as an app does: MODEL.pte.
//
// Every input is ones. Prints each output's shape and its first numbers, and the milliseconds of the
// best of ten calls. An app that links only what is linked here can run the file.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;

int main(int count, char** words) {
  if (count < 2) {
    std::fprintf(stderr, "usage: %s MODEL.pte\n", words[0]);
    return 2;
  }
  Module module(words[1]);
  const auto about = module.method_meta("forward");
  if (!about.ok()) {
    std::fprintf(stderr, "%s cannot be read: error %d\n", words[1], int(about.error()));
    return 1;
  }
  std::vector<TensorPtr> tensors;
  std::vector<EValue> inputs;
  for (size_t i = 0; i < about->num_inputs(); ++i) {
    const auto input = about->input_tensor_meta(i);
    const auto sizes = input->sizes();
    tensors.push_back(executorch::extension::ones({sizes.begin(), sizes.end()}, input->scalar_type()));
    inputs.push_back(tensors.back());
  }
  double best = 1e9;
  for (int call = 0; call < 10; ++call) {
    const auto start = std::chrono::steady_clock::now();
    const auto outputs = module.forward(inputs);
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
    if (!outputs.ok()) {
      std::fprintf(stderr, "%s cannot be run: error %d\n", words[1], int(outputs.error()));
      return 1;
    }
    best = std::min(best, taken.count());
    for (size_t i = 0; call == 0 && i < outputs->size(); ++i) {
      const auto& output = outputs->at(i).toTensor();
      std::printf("output %zu [", i);
      for (int axis = 0; axis < output.dim(); ++axis) {
        std::printf(axis ? ", %d" : "%d", int(output.size(axis)));
      }
      std::printf("]");
      if (output.scalar_type() == executorch::aten::ScalarType::Float) {
        const auto* numbers = output.const_data_ptr<float>();
        for (ssize_t k = 0; k < std::min<ssize_t>(output.numel(), 5); ++k) {
          std::printf(" %.9g", numbers[k]);
        }
      }
      std::printf("\n");
    }
  }
  std::printf("%.3f ms\n", best);
  return 0;
}
