//! PHP as the recipe for WordPress has it: nginx, by the lines of its page, and PHP-FPM on a Unix socket. Neither is root.

use std::{fs, net::SocketAddr, os::unix::fs::chown, path::Path, process::Command};

use gatehouse_tests::{
    account::{self, Account},
    binaries::repository,
    folder::Folder,
    process::Process,
    raw::Raw,
    tool, wait,
};

/// Who servers are here, in a folder of theirs.
pub(crate) struct Host {
    account: Option<Account>,
    folder: Folder,
}

/// nginx before PHP-FPM.
pub(crate) struct Php {
    _nginx: Process,
    _fpm: Process,
}

impl Host {
    pub(crate) fn new() -> Self {
        let host = Self { account: account::lent(&["www-data", "nobody"]), folder: Folder::new() };
        host.give(host.path());
        host
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command of this account, in its folder.
    pub(crate) fn command(&self, names: &[&str], package: &str) -> Command {
        let mut command = Command::new(tool::find(names, package));
        account::run_as(&mut command, self.account).current_dir(self.path()).env("HOME", self.path());
        command
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        self.folder.write(name, text);
        self.give(&self.path().join(name));
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.account {
            chown(path, Some(user), Some(group)).expect("root may give away what it has made");
        }
    }

    /// What a package has put on this machine, copied with what its links lead to.
    pub(crate) fn copy(&self, from: &str, name: &str) {
        assert!(Path::new(from).is_dir(), "{from} is not there: `make test-apps` installs it");
        self.copy_folder(Path::new(from), &self.path().join(name));
    }

    fn copy_folder(&self, from: &Path, into: &Path) {
        fs::create_dir(into).expect("nothing has its name");
        self.give(into);
        for entry in fs::read_dir(from).expect("a folder of a package can be read") {
            let entry = entry.expect("a folder of a package can be read");
            let (place, copy) = (entry.path(), into.join(entry.file_name()));
            // Some links lead to what an administrator has yet to write, such as LocalSettings.php.
            let Ok(metadata) = fs::metadata(&place) else { continue };
            if metadata.is_dir() {
                self.copy_folder(&place, &copy);
            } else {
                fs::copy(&place, &copy).expect("a file of a package can be read");
                self.give(&copy);
            }
        }
    }

    /// Runs a script of PHP to its end.
    pub(crate) fn php(&self, arguments: &[&str]) -> String {
        tool::run_command(self.command(&["php"], "php-cli").args(arguments))
    }

    /// Serves the PHP of `root` there.
    pub(crate) fn serve(&self, root: &str, here: SocketAddr) -> Php {
        let socket = self.path().join("php.sock");
        let server = self.server(root, here, &socket);
        let folder = self.path().display();
        self.write(
            "fpm.conf",
            &format!(
                "[global]\nerror_log = {folder}/fpm.log\ndaemonize = no\n[www]\nlisten = {}\npm = static\npm.max_children = 4\n\
                 clear_env = no\nphp_admin_value[upload_max_filesize] = 16M\nphp_admin_value[post_max_size] = 16M\n",
                socket.display()
            ),
        );
        self.write(
            "nginx.conf",
            &format!(
                "pid {folder}/nginx.pid; daemon off; error_log stderr; worker_processes 1; events {{}}\nhttp {{ access_log off;\n\
                 include /etc/nginx/mime.types;\nclient_max_body_size 16m;\nclient_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; \
                 fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n{server}\n}}\n"
            ),
        );
        let versions = ["php-fpm8.4", "php-fpm8.3", "php-fpm8.2", "php-fpm8.1", "php-fpm"];
        let mut fpm = self.command(&versions, "php-fpm");
        let fpm = Process::start("php-fpm", fpm.arg("--fpm-config").arg(self.path().join("fpm.conf")));
        wait::until("PHP-FPM listens", || socket.exists().then_some(()));
        let mut nginx = self.command(&["nginx"], "nginx-light");
        nginx.args(["-e", "stderr", "-p"]).arg(self.path()).arg("-c").arg(self.path().join("nginx.conf"));
        let nginx = Process::start("nginx", &mut nginx);
        wait::until("nginx listens", || Raw::try_connect(here).map(drop));
        Php { _nginx: nginx, _fpm: fpm }
    }

    /// The lines for nginx that stand on the recipe's page.
    fn server(&self, root: &str, here: SocketAddr, socket: &Path) -> String {
        let page = repository().join("docs/recipes/wordpress/README.md");
        let page = fs::read_to_string(page).expect("the recipe has a page");
        let lines = page.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next());
        let mut text = lines.expect("the page has lines for nginx").to_owned();
        let root = self.path().join(root).display().to_string();
        for (written, instead) in [
            ("127.0.0.1:8081", here.to_string()),
            ("/srv/wordpress", root),
            ("unix:/run/php/php-fpm.sock", format!("unix:{}", socket.display())),
            ("include fastcgi_params", "include /etc/nginx/fastcgi_params".to_owned()),
        ] {
            assert!(text.contains(written), "the page has no {written:?}");
            text = text.replace(written, &instead);
        }
        text
    }
}
