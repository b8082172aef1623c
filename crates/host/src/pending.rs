pub enum KvmProof {
    Proven,
    NotThere(String),
    False(String),
}
pub fn prove_kvm() -> KvmProof {
    KvmProof::NotThere("pending".into())
}
pub fn machine_type(p: model::Profile) -> &'static str {
    match p {
        model::Profile::Q35 => "pc-q35-10.0",
        _ => "pc-i440fx-10.0",
    }
}
#[derive(Debug, thiserror::Error)]
#[error("agent")]
pub struct AgentError;
impl AgentError {
    pub fn is_timeout(&self) -> bool {
        false
    }
    pub fn hint(&self) -> String {
        String::new()
    }
}
pub struct Done {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}
pub struct Agent;
impl Agent {
    pub fn connect(_: &std::path::Path) -> Result<Self, AgentError> {
        Err(AgentError)
    }
    pub fn ping(&mut self, _: std::time::Duration) -> Result<(), AgentError> {
        Err(AgentError)
    }
    pub fn exec(
        &mut self,
        _: &[String],
        _: Option<&[u8]>,
        _: std::time::Duration,
    ) -> Result<Done, AgentError> {
        Err(AgentError)
    }
}
