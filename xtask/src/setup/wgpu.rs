//! A Vulkan driver for wgpu; software (`llvmpipe` of mesa-vulkan-drivers) counts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

/// A driver that a manifest of the Vulkan loader names.
struct Driver {
    manifest: PathBuf,
    /// Why it cannot be used.
    fault: Option<String>,
}

/// Say which drivers there are, or what to install.
pub fn run() -> Result<ExitCode> {
    if !cfg!(target_os = "linux") {
        eprintln!("wgpu uses what {} brings with it; nothing to set up", env::consts::OS);
        return Ok(ExitCode::SUCCESS);
    }
    let loader = library("libvulkan.so.1");
    match &loader {
        Some(path) => eprintln!("Vulkan loader: `{}`", path.display()),
        None => eprintln!("Vulkan loader: none, `libvulkan.so.1` is not in the standard folders nor LD_LIBRARY_PATH"),
    }
    let drivers = drivers();
    for Driver { manifest, fault } in &drivers {
        match fault {
            None => eprintln!("driver: `{}`", manifest.display()),
            Some(fault) => eprintln!("no driver: `{}`: {fault}", manifest.display()),
        }
    }
    if loader.is_some() && drivers.iter().any(|driver| driver.fault.is_none()) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("hint: install a driver of your GPU's vendor, or Mesa's, which has one in software:");
    eprintln!("hint: apt-get install mesa-vulkan-drivers libvulkan1");
    Ok(ExitCode::FAILURE)
}

/// The drivers that the Vulkan loader would see: those of VK_DRIVER_FILES or VK_ICD_FILENAMES where one is set, else
/// those of the standard folders.
fn drivers() -> Vec<Driver> {
    let asked = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .iter()
        .find_map(|name| env::var_os(name).filter(|value| !value.is_empty()));
    let manifests = match asked {
        Some(files) => env::split_paths(&files).collect(),
        None => {
            let mut folders: Vec<PathBuf> = ["/etc", "/usr/local/share", "/usr/share"]
                .iter()
                .map(|root| Path::new(root).join("vulkan/icd.d"))
                .collect();
            folders.extend(env::home_dir().map(|home| home.join(".local/share/vulkan/icd.d")));
            let mut manifests: Vec<PathBuf> = folders
                .iter()
                .filter_map(|folder| fs::read_dir(folder).ok())
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
                .collect();
            manifests.sort();
            manifests
        }
    };
    manifests
        .into_iter()
        .map(|manifest| Driver {
            fault: fault(&manifest),
            manifest,
        })
        .collect()
}

fn fault(manifest: &Path) -> Option<String> {
    let text = match fs::read(manifest) {
        Ok(text) => text,
        Err(error) => return Some(error.to_string()),
    };
    let manifest_folder = manifest.parent().unwrap_or(Path::new("."));
    let value: serde_json::Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => return Some(error.to_string()),
    };
    let Some(name) = value["ICD"]["library_path"].as_str() else {
        return Some("no `ICD.library_path`".to_owned());
    };
    // The loader's rule: a path with a slash is a file, relative to the manifest; a bare name is searched for.
    let found = if name.contains('/') {
        manifest_folder.join(name).exists()
    } else {
        library(name).is_some()
    };
    (!found).then(|| format!("its library `{name}` is missing"))
}

/// The shared library `name` in LD_LIBRARY_PATH or the standard folders.
fn library(name: &str) -> Option<PathBuf> {
    let arch = env::consts::ARCH;
    let standard = [
        format!("/usr/lib/{arch}-linux-gnu"),
        format!("/lib/{arch}-linux-gnu"),
        "/usr/lib64".to_owned(),
        "/usr/lib".to_owned(),
        "/usr/local/lib".to_owned(),
    ];
    let asked = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    env::split_paths(&asked)
        .chain(standard.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_without_a_library_is_no_driver() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let manifest = folder.path().join("driver.json");
        let check = |text: &str, expected: Option<&str>| {
            fs::write(&manifest, text).expect("written");
            let fault = fault(&manifest);
            match expected {
                None => assert_eq!(fault, None),
                Some(part) => assert!(fault.as_ref().is_some_and(|fault| fault.contains(part)), "{fault:?}"),
            }
        };
        check("not json", Some("expected ident"));
        check("{}", Some("no `ICD.library_path`"));
        check(
            r#"{"ICD": {"library_path": "./libdriver.so"}}"#,
            Some("`./libdriver.so` is missing"),
        );
        check(
            r#"{"ICD": {"library_path": "libno_such_driver.so"}}"#,
            Some("is missing"),
        );
        fs::write(folder.path().join("libdriver.so"), "").expect("written");
        check(r#"{"ICD": {"library_path": "./libdriver.so"}}"#, None);
    }
}
